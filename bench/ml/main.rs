//! The speed of models, training, scoring and generation, one measurement a process: `bench/ml/compare.py` runs it beside the
//! same work in Python. It does not know peers, tables or repetitions.
//!
//! `ml make FOLDER SHAPE` writes a base with random weights, adapters for it and rows; `ml WORK FOLDER key=value …`
//! does one piece of work on them and prints one line of JSON.

#![allow(clippy::print_stdout)]

mod pack;
mod shapes;
mod text;
mod usage;
mod work;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;

use pipe::error::{Problem, Result};

fn main() -> ExitCode {
    // `cargo bench` adds its own word.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn run(words: &[String]) -> Result<()> {
    let [what, folder, rest @ ..] = words else {
        return Err(Problem::new("ml make FOLDER SHAPE, or ml WORK FOLDER key=value …"));
    };
    let folder = Path::new(folder);
    if what == "make" {
        return shapes::make(folder, rest.first().map_or("T", String::as_str));
    }
    let options: BTreeMap<&str, &str> = rest.iter().filter_map(|word| word.split_once('=')).collect();
    // As steps run: not on the main thread, whose memory the allocator handles in another way.
    let line = std::thread::scope(|scope| {
        let work = scope.spawn(|| work::run(what, folder, &work::Options(options)));
        work.join().unwrap_or_else(|_| Err(Problem::new("the work panicked")))
    })?;
    println!("{line}");
    Ok(())
}
