//! Chat templates: the model's own Jinja around a prompt and its answer, rendered as transformers renders it.
//! It does not know ids. Text of a data file stays text: only the template's own words become special tokens.

use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{Environment, Error, ErrorKind, Output, State, context};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::config::Config;
use super::json::to_json;
use super::marks::Marks;
use crate::error::{Path, Problem, Result};

/// How a prompt is put to a model that was trained to talk.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChatParams {
    /// The system message; without it there is none, unless the template writes one of its own.
    #[serde(default)]
    pub system: Option<String>,
}

/// A template that is ready, with what it is told besides the messages.
pub struct Chat {
    environment: Environment<'static>,
    system: Option<String>,
    names: Vec<(String, Value)>,
    marks: Marks,
    label: String,
}

/// A prompt and an answer as the template writes them, special tokens as marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exchange {
    /// All up to where the answer begins.
    pub prompt: String,
    /// The answer, with a space before it where the template writes one.
    pub answer: String,
    /// Number of the special token that ends the answer.
    pub end: Option<usize>,
}

const NAME: &str = "chat_template";

/// Instructions of one rendering: far more than any template takes, and reached in a second by one without end.
const FUEL: u64 = 20_000_000;

impl Chat {
    /// Of a tokenizer's own template.
    pub fn new(params: &ChatParams, config: &Config, marks: Marks, label: &str) -> Result<Self> {
        let Some(template) = &config.chat_template else {
            return Err(Problem::new(format!("the tokenizer of {label} has no chat template"))
                .at(Path::root().key("chat"))
                .help(
                    "leave `chat` out, or put the chat_template.jinja that belongs to the model beside its tokenizer",
                ));
        };
        let mut environment = environment();
        environment.add_template_owned(NAME, generation_tags(template)).map_err(|error| problem(label, &error))?;
        let texts = config.named.iter().map(|(name, token)| ((*name).to_owned(), token.content.as_str().into()));
        let mut names: Vec<(String, Value)> = texts.collect();
        if !config.extra.is_empty() {
            let extra: Vec<Value> = config.extra.iter().map(|token| token.content.as_str().into()).collect();
            let extra = Value::from(extra);
            names.extend(["additional_special_tokens", "extra_special_tokens"].map(|n| (n.to_owned(), extra.clone())));
        }
        Ok(Self { environment, system: params.system.clone(), names, marks, label: label.to_owned() })
    }

    /// Special tokens in what is rendered.
    pub fn marks(&self) -> &Marks {
        &self.marks
    }

    /// What the model is to continue.
    pub fn prompt(&self, prompt: &str) -> Result<String> {
        // Any answer shows what the template writes before it.
        Ok(self.exchange(prompt, "да")?.prompt)
    }

    /// A prompt with its answer. How the answer stands is taken from the whole conversation as the template writes
    /// it, where that begins with what the model is to continue; otherwise the answer simply follows. What stands
    /// between is the template's and not for the model to find, but for a space, which is part of the first word.
    pub fn exchange(&self, prompt: &str, answer: &str) -> Result<Exchange> {
        let answer = answer.trim();
        let mut context = self.render(prompt, None)?;
        let whole = self.render(prompt, Some(answer))?;
        let (before, tail) = match whole.rfind(answer) {
            Some(at) => (&whole[..at], Some(&whole[at + answer.len()..])),
            None => ("", None),
        };
        let lead = before.strip_prefix(&context).unwrap_or_default();
        let header = lead.trim_end_matches(' ');
        let answer = format!("{}{answer}", &lead[header.len()..]);
        context.push_str(header);
        Ok(Exchange { prompt: context, answer, end: tail.and_then(|tail| self.marks.first(tail)) })
    }

    fn render(&self, prompt: &str, answer: Option<&str>) -> Result<String> {
        let message = |role: &str, content: &str| -> Result<Value> {
            let content = self.marks.shield(content)?;
            Ok(Value::from_pairs([("role", Value::from(role)), ("content", Value::from(content))]))
        };
        let mut messages = Vec::new();
        if let Some(system) = &self.system {
            messages.push(message("system", system)?);
        }
        messages.push(message("user", prompt)?);
        if let Some(answer) = answer {
            messages.push(message("assistant", answer)?);
        }
        let own = context! {
            messages => messages,
            tools => (),
            documents => (),
            add_generation_prompt => answer.is_none(),
            // Hybrid models answer at once: a label cannot be scored after thoughts that are not there.
            enable_thinking => false,
        };
        let names = Value::from_pairs(self.names.iter().cloned());
        let template = self.environment.get_template(NAME).map_err(|error| problem(&self.label, &error))?;
        let text = template.render(context! { ..own, ..names }).map_err(|error| problem(&self.label, &error))?;
        let text = self.marks.unshield(&self.marks.mark(&text));
        if !text.contains(prompt.trim()) {
            return Err(Problem::new(format!("the chat template of {} leaves the prompt out", self.label))
                .at(Path::root().key("chat"))
                .help("it is made for messages of several parts, such as pictures: write a chat_template.jinja for plain text"));
        }
        Ok(text)
    }
}

/// Jinja as transformers sets it up in `utils/chat_template_utils.py`. What is of today (`strftime_now`) is not there:
/// templates that ask whether it is take their fixed date, and others are refused.
fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().unwrap_or_default());
    environment.set_auto_escape_callback(|_| minijinja::AutoEscape::None);
    environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    environment.set_fuel(Some(FUEL));
    environment.set_formatter(as_python_prints);
    environment.add_filter("tojson", to_json);
    // `none` can be iterated over here, but not in Python.
    environment.add_test("iterable", |value: &Value| {
        value.kind() == ValueKind::String || (!value.is_none() && value.try_iter().is_ok())
    });
    environment.add_function("raise_exception", |message: String| -> std::result::Result<Value, Error> {
        Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
    });
    environment
}

/// Marks what a template itself says against the messages.
const REFUSED: &str = "raise_exception: ";

fn problem(label: &str, error: &Error) -> Problem {
    let detail = error.detail().unwrap_or_default();
    let at = |problem: Problem| problem.at(Path::root().key("chat"));
    if let Some(message) = detail.strip_prefix(REFUSED) {
        return at(Problem::new(format!("the chat template of {label} refuses these messages: {message}"))
            .help("it may not know a system message: leave `chat.system` out, and write it into the prompt"));
    }
    let line = error.line().map(|line| format!(" (line {line})")).unwrap_or_default();
    let what = match error.kind() {
        ErrorKind::OutOfFuel => "takes too long".to_owned(),
        kind if detail.is_empty() => format!("cannot be used: {kind}"),
        kind => format!("cannot be used: {kind}: {detail}"),
    };
    let problem = at(Problem::new(format!("the chat template of {label} {what}{line}")));
    if detail.contains("strftime_now") {
        return problem.help("it asks for the date of today, and rows must not depend on the day: write a fixed date into a chat_template.jinja of your own");
    }
    problem
}

/// `{% generation %}` marks the assistant's words for training in transformers; it writes nothing.
fn generation_tags(template: &str) -> String {
    let mut out = String::with_capacity(template.len());
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        let Some((tag, behind)) = after.split_once("%}") else {
            rest = after;
            break;
        };
        let word = tag.trim_matches(|c: char| c.is_whitespace() || "-+".contains(c));
        match word {
            "generation" => out.push_str(&tag.replace(word, "if true")),
            "endgeneration" => out.push_str(&tag.replace(word, "endif")),
            _ => out.push_str(tag),
        }
        out.push_str("%}");
        rest = behind;
    }
    out.push_str(rest);
    out
}

/// `None`, `True` and `False` as Python prints them.
fn as_python_prints(out: &mut Output, state: &mut State, value: &Value) -> std::result::Result<(), Error> {
    let text = match value.kind() {
        ValueKind::None => "None",
        ValueKind::Bool if value.is_true() => "True",
        ValueKind::Bool => "False",
        _ => return minijinja::escape_formatter(out, state, value),
    };
    out.write_str(text).map_err(Error::from)
}
