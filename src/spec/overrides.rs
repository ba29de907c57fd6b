//! Changes of the parameters: a profile of the file, then `--set a.b=v` of the command line.
//! It does not know what the parameters are for; it holds that no change adds a name or changes a type.

use serde_json::Value;

use crate::error::{Path, Problem};

use super::node::{parse_value, type_name};
use super::problems::Findings;
use super::substitute::has_names;
use super::suggest;

/// Merges a profile into the parameters, in depth; lists and scalars are replaced.
pub(super) fn merge(params: &mut Value, profile: &Value, path: &Path, findings: &mut Findings) {
    match (params, profile) {
        (Value::Object(old), Value::Object(new)) if old.is_empty() => *old = new.clone(),
        (Value::Object(old), Value::Object(new)) => {
            for (name, value) in new {
                let path = path.key(name);
                match old.get_mut(name) {
                    Some(slot) => merge(slot, value, &path, findings),
                    None => {
                        let help =
                            suggest::help(name, old.keys().map(String::as_str), "there is", "add it under `params:`");
                        let problem =
                            Problem::new(format!("there is no parameter `{name}` for this profile to change"))
                                .expected("a name under `params:`")
                                .help(help);
                        findings.key(&path, problem);
                    }
                }
            }
        }
        (slot, value) => match changed_type(slot, value) {
            None => *slot = value.clone(),
            Some(expected) => {
                let what = format!("this profile makes {} of what is {expected}", type_name(value));
                findings.value(path, Problem::new(what).expected(expected));
            }
        },
    }
}

/// Does what one `--set` says.
pub(super) fn set(params: &mut Value, setting: &str) -> Result<(), Problem> {
    let wrong = |what: String| Problem::new(format!("`--set {setting}`: {what}"));
    let Some((name, text)) = setting.split_once('=') else {
        return Err(wrong("there is no `=`".to_owned()).help("write `--set lora.rank=8`"));
    };
    let name = name.trim();
    let name = name.strip_prefix("params.").unwrap_or(name);
    let value = parse_value(text).map_err(|problem| Problem { what: wrong(problem.what).what, ..problem })?;
    let mut slot = params;
    let mut so_far = String::new();
    for segment in name.split('.') {
        let Value::Object(entries) = slot else {
            return Err(wrong(format!("`{so_far}` is {}, it has no `{segment}`", type_name(slot)))
                .help(format!("set it as a whole: `--set {so_far}=…`")));
        };
        let known: Vec<String> = entries.keys().cloned().collect();
        slot = entries.get_mut(segment).ok_or_else(|| {
            let inside = if so_far.is_empty() { String::new() } else { format!(" in `{so_far}`") };
            let near = suggest::nearest(segment, known.iter().map(String::as_str)).map(|near| {
                let head = if so_far.is_empty() { String::new() } else { format!("{so_far}.") };
                format!("did you mean `{head}{near}`?")
            });
            let all =
                || suggest::help(segment, known.iter().map(String::as_str), "there is", "the file has no `params:`");
            wrong(format!("there is no parameter `{segment}`{inside}")).help(near.unwrap_or_else(all))
        })?;
        so_far = if so_far.is_empty() { segment.to_owned() } else { format!("{so_far}.{segment}") };
    }
    if let Some((path, found)) = find_names(&value, &so_far) {
        return Err(wrong(format!("`{path}` is `{found}`, but parameters cannot refer to others")));
    }
    replace(slot, value, &so_far).map_err(|(what, help)| {
        let problem = wrong(what);
        if help.is_empty() { problem } else { problem.help(help) }
    })
}

/// Puts `value` in the place of `slot`. A mapping replaces a mapping as a whole, with names that were there.
fn replace(slot: &mut Value, value: Value, name: &str) -> Result<(), (String, String)> {
    if let Some(expected) = changed_type(slot, &value) {
        let help = match (&*slot, &value) {
            (Value::String(_), Value::Number(_) | Value::Bool(_)) => {
                format!("put it in quotes to make it text: `--set '{name}=\"{value}\"'`")
            }
            _ => String::new(),
        };
        return Err((format!("`{name}` is {expected}, not {}", type_name(&value)), help));
    }
    if let (Value::Object(old), Value::Object(new)) = (&*slot, &value)
        && !old.is_empty()
    {
        for (key, value) in new {
            let Some(old) = old.get(key) else {
                let help = suggest::help(key, old.keys().map(String::as_str), "there is", "");
                return Err((format!("there is no parameter `{key}` in `{name}`"), help));
            };
            replace(&mut old.clone(), value.clone(), &format!("{name}.{key}"))?;
        }
    }
    *slot = value;
    Ok(())
}

/// What the value should be, if it is of another type than before. A parameter that is null so far takes
/// anything, and anything may be made null.
fn changed_type(old: &Value, new: &Value) -> Option<&'static str> {
    let same = old.is_null() || new.is_null() || std::mem::discriminant(old) == std::mem::discriminant(new);
    (!same).then(|| type_name(old))
}

/// The first text of a value that looks like a reference to a parameter.
fn find_names(value: &Value, name: &str) -> Option<(String, String)> {
    match value {
        Value::String(text) if has_names(text) => Some((name.to_owned(), text.clone())),
        Value::Array(items) => items.iter().enumerate().find_map(|(i, item)| find_names(item, &format!("{name}[{i}]"))),
        Value::Object(entries) => entries.iter().find_map(|(key, item)| find_names(item, &format!("{name}.{key}"))),
        _ => None,
    }
}

/// Parameters are substituted into steps, once; one that refers to another would be left as it is.
pub(super) fn refuse_names(value: &Value, path: &Path, findings: &mut Findings) {
    match value {
        Value::String(text) if has_names(text) => findings.value(
            path,
            Problem::new("a parameter cannot refer to others")
                .expected("a plain value")
                .help("put the `${…}` into the step that needs it"),
        ),
        Value::Array(items) => {
            for (i, item) in items.iter().enumerate() {
                refuse_names(item, &path.index(i), findings);
            }
        }
        Value::Object(entries) => {
            for (key, item) in entries {
                refuse_names(item, &path.key(key), findings);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn after(setting: &str) -> Result<Value, Problem> {
        let mut params = json!({ "lora": { "rank": 4, "modules": ["q"] }, "files": null, "text": "a" });
        set(&mut params, setting).map(|()| params)
    }

    #[test]
    fn values_are_yaml_and_keep_their_types() {
        assert_eq!(after("lora.rank=8").unwrap()["lora"]["rank"], json!(8));
        assert_eq!(after("lora.modules=[q, v]").unwrap()["lora"]["modules"], json!(["q", "v"]));
        assert_eq!(after("files=../shared").unwrap()["files"], json!("../shared"));
        assert_eq!(after("text=no").unwrap()["text"], json!("no"));
        assert_eq!(after("text=a=b").unwrap()["text"], json!("a=b"));
        assert_eq!(after("lora={rank: 2}").unwrap()["lora"], json!({ "rank": 2 }));
    }

    #[test]
    fn a_misspelt_name_or_another_type_is_refused() {
        assert_eq!(after("lora.rnak=8").unwrap_err().help.unwrap(), "did you mean `lora.rank`?");
        assert_eq!(after("lora={rnak: 2}").unwrap_err().help.unwrap(), "did you mean `rank`?");
        assert!(after("lora.rank=many").unwrap_err().what.contains("is a number, not text"));
        assert!(after("lora.rank.x=1").unwrap_err().what.contains("it has no `x`"));
        assert!(after("lora.rank").unwrap_err().what.contains("no `=`"));
    }
}
