//! What went wrong with other orchestrators when they were tried (B1 to B13), and the seven lessons drawn from it
//! (L1 to L7), each as a test through the binary.
//! It does not know why a law is kept; that stands beside the code.
//!
//! | | elsewhere | here | test |
//! |---|---|---|---|
//! | B1 | `exclude` becomes a third axis | part of the language; cells that are there do not run again | `scheduler::b1_cells_that_are_there_do_not_run_again`, `names::l6_…`, `tests/bad/matrix_exlude.yaml` |
//! | B2 | an input edited meanwhile is cached under the wrong key | named, and nothing is recorded | `command::b2_an_input_that_changes_while_the_step_runs_is_named_and_not_recorded` |
//! | B3 | of six runs at once three fail | every step runs once in all of them together | `scheduler::b3_six_runs_at_once_do_every_step_once` |
//! | B4 | nobody says why a step runs again | every rerun says it unasked, old → new | `why::b4_every_rerun_says_why_with_old_and_new` |
//! | B5 | steps of some sorts are not kept for later | every step is | `reuse::b5_every_sort_of_step_is_kept_for_later`, those that leave checkpoints in `resume` |
//! | B6 | a state file that was cut short stops the next run | it costs what it held, at most | `cut::b6_state_that_was_cut_short_stops_no_run`; `hub::lock::l4_…` for `pipe.lock` |
//! | B7 | typos have no place or no suggestion, or run | both, and nothing runs | `names::b7_…` |
//! | B8 | a comment in code makes consumers run | only the step itself | `command::b8_a_comment_in_code_reruns_the_step_and_not_its_consumers` |
//! | B9 | "code has changed" | which file, from what to what | `why::b9_changed_code_is_named_file_by_file` |
//! | B10 | after `kill -9` somebody has to unlock | the next run just runs | `scheduler::b10_after_a_kill_the_next_run_just_runs` |
//! | B11 | a changed helper goes unnoticed | what is not declared is not there | `command::b11_what_is_not_declared_is_not_there` |
//! | B12 | the same bytes from above, and still a miss; no suggestion for a key | a hit in the same run; a suggestion | `reuse::b12_…` |
//! | B13 | (good) early cut-off; recovery from a kill | so here | `reuse::b13_a_kill_in_the_middle_costs_the_step_alone` |
//! | L1 | | inputs are hashed before and after | B2; `engine::an_input_that_changes_while_the_step_runs_is_not_recorded` |
//! | L2 | | no lock of the whole | B3; `cache::six_processes_make_each_result_once` |
//! | L3 | | nothing to unlock | B10; `cache::a_killed_holder_leaves_nothing_to_unlock` |
//! | L4 | | a kill at any instant leaves state that can be read | `cache::kills_at_any_instant_leave_a_sound_cache`, `cache::long_a_thousand_kills_leave_a_sound_cache`; B6 |
//! | L5 | | one exact text for each cause of a rerun | `why::l5_…` |
//! | L6 | | unknown keys are refused everywhere | `names::l6_…` |
//! | L7 | | state grows linearly, and a step costs the same among many | `linear::l7_…`; `cache::what_is_written_per_step_does_not_depend_on_how_many_there_are` |

mod cut;
mod linear;
mod names;
mod reuse;
mod why;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use pipe::digest::Digest;

use crate::data_steps::project;
use crate::engine::command::{stderr, stdout};

/// A pipeline `p.yaml` in a folder of its own.
struct Case(tempfile::TempDir);

impl Case {
    fn new(yaml: &str, files: &[(&str, &str)]) -> Self {
        let files = files.iter().map(|(name, text)| (*name, text.as_bytes()));
        Self(project(&[("p.yaml", yaml.as_bytes())].into_iter().chain(files).collect::<Vec<_>>()))
    }

    fn root(&self) -> &Path {
        self.0.path()
    }

    fn cache(&self) -> PathBuf {
        self.root().join("cache")
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root().join(name), text).expect(name);
    }

    /// Writes something else in the place of a text of the pipeline.
    fn edit(&self, from: &str, to: &str) {
        let yaml = fs::read_to_string(self.root().join("p.yaml")).expect("the pipeline");
        assert!(yaml.contains(from), "{from}");
        self.write("p.yaml", &yaml.replacen(from, to, 1));
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(args).current_dir(self.root()).env_remove("PIPE_CACHE").env_remove("PASSED");
        // Where commands leave traces of themselves, outside of what counts.
        command.env("HOME", self.root());
        command
    }

    fn pipe(&self, args: &[&str]) -> Told {
        Told::of(&self.command(args).output().expect("the binary starts"))
    }

    fn run(&self, more: &[&str]) -> Told {
        self.pipe(&[&["run", "p.yaml", "--device", "cpu"], more].concat())
    }

    /// A run that must end well.
    fn good(&self, more: &[&str]) -> Told {
        let told = self.run(more);
        assert_eq!(told.code, Some(0), "{}", told.text);
        told
    }

    fn result(&self, path: &str) -> String {
        fs::read_to_string(self.cache().join("results/p").join(path)).expect(path)
    }
}

/// What a command said.
struct Told {
    code: Option<i32>,
    out: String,
    text: String,
}

impl Told {
    fn of(output: &Output) -> Self {
        Self { code: output.status.code(), out: stdout(output), text: stderr(output) }
    }

    /// The steps that began to run, and the reasons that were told.
    fn reasons(&self) -> Vec<(&str, &str)> {
        self.text.lines().filter(|line| line.starts_with("▸ ")).map(begun).collect()
    }

    fn ran(&self) -> Vec<&str> {
        self.reasons().into_iter().map(|(step, _)| step).collect()
    }

    fn why(&self, step: &str) -> &str {
        let found = self.reasons().into_iter().find(|(id, _)| *id == step);
        found.unwrap_or_else(|| panic!("{step} did not run:\n{}", self.text)).1
    }
}

/// `▸ step   runs   reason`.
fn begun(line: &str) -> (&str, &str) {
    let rest = line.trim_start_matches("▸ ");
    let (step, rest) = rest.split_once(' ').unwrap_or((rest, ""));
    (step, rest.trim_start().trim_start_matches("runs").trim_start())
}

/// A content as reasons show it.
fn short(text: &str) -> String {
    format!("{}…", &Digest::of(text.as_bytes()).as_str()[..8])
}
