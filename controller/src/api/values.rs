//! Values that have a written form: times such as `2h`, and counts such as `2` or `50%`.
//!
//! What is right is said in CEL, so that the API server and `worker-drain` refuse the same text in the same words.

use std::{borrow::Cow, fmt, str::FromStr};

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Message, Rule};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The form of a duration, as a regular expression that Go and Rust read alike. It is Gateway API's.
const DURATION_FORM: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// The form of a percentage from 0% to 100%.
const PERCENT_FORM: &str = "^(100|[0-9]{1,2})%$";

/// A duration, written as numbers with units: `90s`, `30m`, `1h30m`. Units are h, m, s and ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Duration(SignedDuration);

impl Duration {
    /// So many seconds.
    pub const fn from_secs(seconds: i64) -> Self {
        Self(SignedDuration::from_secs(seconds))
    }

    /// So many hours.
    pub const fn from_hours(hours: i64) -> Self {
        Self(SignedDuration::from_hours(hours))
    }

    /// As what the planner calculates with.
    pub const fn get(self) -> SignedDuration {
        self.0
    }
}

/// A text that is not of the right form.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{value:?} is not {what}")]
pub struct FormError {
    value: String,
    what: &'static str,
}

impl FromStr for Duration {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let error = || FormError { value: text.into(), what: "a duration such as 90s, 30m or 2h" };
        let mut total = SignedDuration::ZERO;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.find(|sign: char| !sign.is_ascii_digit()).ok_or_else(error)?;
            let number: i64 = rest[..digits].parse().map_err(|_| error())?;
            rest = &rest[digits..];
            let letters = rest.find(|sign: char| sign.is_ascii_digit()).unwrap_or(rest.len());
            let part = match &rest[..letters] {
                "h" => SignedDuration::from_secs(number.checked_mul(3600).ok_or_else(error)?),
                "m" => SignedDuration::from_secs(number.checked_mul(60).ok_or_else(error)?),
                "s" => SignedDuration::from_secs(number),
                "ms" => SignedDuration::from_millis(number),
                _ => return Err(error()),
            };
            total = total.checked_add(part).ok_or_else(error)?;
            rest = &rest[letters..];
        }
        if text.is_empty() { Err(error()) } else { Ok(Self(total)) }
    }
}

impl TryFrom<String> for Duration {
    type Error = FormError;

    fn try_from(text: String) -> Result<Self, FormError> {
        text.parse()
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.to_string()
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        let parts = [
            (seconds / 3600, "h"),
            (seconds / 60 % 60, "m"),
            (seconds % 60, "s"),
            (i64::from(self.0.subsec_millis()), "ms"),
        ];
        for (number, unit) in parts.iter().filter(|(number, _)| *number > 0) {
            write!(f, "{number}{unit}")?;
        }
        if parts.iter().all(|(number, _)| *number == 0) { f.write_str("0s") } else { Ok(()) }
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // 24 signs hold four numbers of five digits with their units. CEL's cost limits need the bound.
        text_of_form(24, DURATION_FORM, "is not a duration: write one such as 90s, 30m or 1h30m (h, m, s, ms)")
    }
}

/// A number of tasks, written as a number: `2`; or a percentage from 0% to 100%, written with its sign: `50%`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "IntOrString", into = "IntOrString")]
pub enum TasksOrPercent {
    /// So many tasks.
    Tasks(u32),
    /// This share, in percent.
    Percent(u8),
}

impl FromStr for TasksOrPercent {
    type Err = FormError;

    fn from_str(text: &str) -> Result<Self, FormError> {
        let number: Option<u8> = text.strip_suffix('%').and_then(|number| number.parse().ok());
        let error = || FormError { value: text.into(), what: "a percentage from 0% to 100%" };
        number.filter(|number| *number <= 100).map(Self::Percent).ok_or_else(error)
    }
}

impl TryFrom<IntOrString> for TasksOrPercent {
    type Error = FormError;

    fn try_from(value: IntOrString) -> Result<Self, FormError> {
        match value {
            IntOrString::Int(number) => u32::try_from(number)
                .map(Self::Tasks)
                .map_err(|_| FormError { value: number.to_string(), what: "a number of tasks" }),
            IntOrString::String(text) => text.parse(),
        }
    }
}

impl From<TasksOrPercent> for IntOrString {
    fn from(value: TasksOrPercent) -> Self {
        match value {
            // Those that were read fit in it.
            TasksOrPercent::Tasks(number) => Self::Int(i32::try_from(number).unwrap_or(i32::MAX)),
            TasksOrPercent::Percent(number) => Self::String(format!("{number}%")),
        }
    }
}

impl JsonSchema for TasksOrPercent {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "TasksOrPercent".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // `string(self) == self` is true of strings only; kube-cel does not support `type(self)`.
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "x-kubernetes-validations": [{
                "rule": format!("string(self) == self ? self.matches('{PERCENT_FORM}') : self >= 0 && self <= {}", i32::MAX),
                "messageExpression": "\"'%s' is neither a number of tasks, such as 2, nor a percentage from 0%% to 100%%, such as 50%%\".format([self])",
            }],
        })
    }
}

fn text_of_form(max_length: u32, form: &str, message: &str) -> Schema {
    json_schema!({
        "type": "string",
        "maxLength": max_length,
        "x-kubernetes-validations": [{
            "rule": format!("self.matches('{form}')"),
            "messageExpression": format!("\"'\" + self + \"' {message}\""),
        }],
    })
}

/// A rule for a length of time: no shorter and no longer than these.
pub(super) fn between(least: &str, most: &str, why: &str) -> Rule {
    let rule = format!(
        "!self.matches('{DURATION_FORM}') || \
         (duration(self) >= duration('{least}') && duration(self) <= duration('{most}'))"
    );
    let message = format!("self + \" is not between {least} and {most}: {why}\"");
    Rule::new(rule).message(Message::Expression(message))
}

/// A condition in CEL on lengths of time, which holds while one of them is not of the right form: that is refused by
/// itself.
pub(super) fn if_formed(durations: &[&str], condition: &str) -> String {
    let unformed = durations.iter().map(|path| format!("!{path}.matches('{DURATION_FORM}') || "));
    format!("{}{condition}", unformed.collect::<String>())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::{Duration, TasksOrPercent};

    #[rstest]
    #[case("90s", 90_000, "1m30s")]
    #[case("2h", 7_200_000, "2h")]
    #[case("1h30m", 5_400_000, "1h30m")]
    #[case("1500ms", 1_500, "1s500ms")]
    #[case("0s", 0, "0s")]
    fn a_length_of_time_is_read_and_written(#[case] text: &str, #[case] millis: i128, #[case] written: &str) {
        let duration: Duration = text.parse().unwrap();
        assert_eq!(duration.get().as_millis(), millis);
        assert_eq!(duration.to_string(), written);
        assert_eq!(written.parse(), Ok(duration));
    }

    #[rstest]
    #[case("")]
    #[case("90")]
    #[case("1d")]
    #[case("-5s")]
    #[case("1.5h")]
    #[case("99999999999999999999h")]
    fn what_is_no_length_of_time_is_refused(#[case] text: &str) {
        assert!(text.parse::<Duration>().is_err());
    }

    #[rstest]
    #[case("\"0%\"", Some(TasksOrPercent::Percent(0)))]
    #[case("\"100%\"", Some(TasksOrPercent::Percent(100)))]
    #[case("\"101%\"", None)]
    #[case("\"50\"", None)]
    #[case("\"-1%\"", None)]
    #[case("0", Some(TasksOrPercent::Tasks(0)))]
    #[case("2", Some(TasksOrPercent::Tasks(2)))]
    #[case("-1", None)]
    #[case("2.5", None)]
    #[case("true", None)]
    fn a_number_of_tasks_or_a_percentage_is_read_and_written(
        #[case] json: &str,
        #[case] expected: Option<TasksOrPercent>,
    ) {
        let read = serde_json::from_str::<TasksOrPercent>(json).ok();
        assert_eq!(read, expected);
        assert!(read.is_none_or(|value| serde_json::to_string(&value).unwrap() == json));
    }
}
