//! How a person names an Amazon SQS queue: by its name, its URL or its ARN.

use thiserror::Error;
use url::Url;

/// A queue, as far as its name says where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// Another Region than that of the fleet, perhaps.
    pub(super) region: Option<String>,
    pub(super) key: Key,
}

/// What SQS is asked with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// Its name; `None`: in the account of whoever asks.
    Name { name: String, account: Option<String> },
    /// Its URL, which need not be asked for.
    Url(String),
}

/// Not the name of a queue that can be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{what}: write a queue's name (up to 80 letters, digits, - and _, with .fifo at its end or not), its URL or its ARN"
)]
pub(super) struct NoQueue {
    what: &'static str,
}

impl Place {
    /// Errors: no queue can be called so.
    pub(super) fn parse(text: &str) -> Result<Self, NoQueue> {
        if text.starts_with("arn:") {
            Self::of_arn(text).ok_or(NoQueue { what: "it is no ARN of an SQS queue" })
        } else if text.contains("://") {
            Self::of_url(text).ok_or(NoQueue { what: "it is no URL of an SQS queue" })
        } else if is_name(text) {
            let key = Key::Name { name: text.to_owned(), account: None };
            Ok(Self { region: None, key })
        } else {
            Err(NoQueue { what: "no SQS queue can be called so" })
        }
    }

    /// `arn:aws:sqs:eu-west-1:123456789012:name`.
    fn of_arn(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split(':').collect();
        let ["arn", partition, "sqs", region, account, name] = parts[..] else { return None };
        let is_whole = ![partition, region, account].contains(&"") && is_name(name);
        let key = Key::Name { name: name.to_owned(), account: Some(account.to_owned()) };
        is_whole.then(|| Self { region: Some(region.to_owned()), key })
    }

    /// `https://sqs.eu-west-1.amazonaws.com/123456789012/name`.
    fn of_url(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        let is_bare = url.username().is_empty() && url.password().is_none() && url.query().is_none();
        let is_url = matches!(url.scheme(), "https" | "http") && is_bare && url.fragment().is_none();
        let name = url.path_segments()?.next_back()?;
        let region = region_of(url.host_str()?);
        (is_url && is_name(name)).then(|| Self { region, key: Key::Url(text.to_owned()) })
    }
}

/// "A queue name can have up to 80 characters. Valid values: alphanumeric characters, hyphens, and underscores"; a FIFO
/// queue's ends in `.fifo`, which counts (API reference, `CreateQueue`).
fn is_name(name: &str) -> bool {
    let stem = name.strip_suffix(".fifo").unwrap_or(name);
    let fits = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '-' | '_');
    !stem.is_empty() && name.len() <= 80 && stem.chars().all(fits)
}

/// The Region in the name of one of AWS's own endpoints ("Amazon SQS endpoints and quotas"), the older ones too.
fn region_of(host: &str) -> Option<String> {
    let labels: Vec<&str> = host.split('.').collect();
    let region = match labels[..] {
        ["sqs" | "sqs-fips", region, "amazonaws" | "api", ..]
        | [_, "sqs", region, "vpce", "amazonaws", ..]
        | [region, "queue", "amazonaws", ..] => region,
        ["queue", "amazonaws", "com"] => "us-east-1",
        _ => return None,
    };
    Some(region.to_owned())
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::plain("celery")]
    #[case::prefixed("media-slow_jobs2")]
    #[case::first_in_first_out("slow.fifo")]
    fn a_name_is_asked_for_in_our_own_account(#[case] name: &str) {
        let key = Key::Name { name: name.to_owned(), account: None };
        assert_eq!(Place::parse(name), Ok(Place { region: None, key }));
    }

    #[test]
    fn an_arn_tells_region_and_account() {
        let key = Key::Name { name: "slow.fifo".into(), account: Some("123456789012".into()) };
        let place = Place { region: Some("cn-north-1".into()), key };
        assert_eq!(Place::parse("arn:aws-cn:sqs:cn-north-1:123456789012:slow.fifo"), Ok(place));
    }

    #[rstest]
    #[case::own("https://sqs.eu-west-1.amazonaws.com/123456789012/slow", Some("eu-west-1"))]
    #[case::china("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/slow", Some("cn-north-1"))]
    #[case::fips("https://sqs-fips.us-west-2.amazonaws.com/123456789012/slow", Some("us-west-2"))]
    #[case::dual_stack("https://sqs.eu-west-1.api.aws/123456789012/slow", Some("eu-west-1"))]
    #[case::old("https://eu-west-1.queue.amazonaws.com/123456789012/slow", Some("eu-west-1"))]
    #[case::oldest("https://queue.amazonaws.com/123456789012/slow", Some("us-east-1"))]
    #[case::private("https://vpce-1-a.sqs.eu-west-1.vpce.amazonaws.com/123456789012/slow", Some("eu-west-1"))]
    #[case::emulated("http://127.0.0.1:5000/123456789012/slow", None)]
    fn a_url_is_kept_and_may_tell_the_region(#[case] url: &str, #[case] region: Option<&str>) {
        let place = Place { region: region.map(ToOwned::to_owned), key: Key::Url(url.to_owned()) };
        assert_eq!(Place::parse(url), Ok(place));
    }

    #[rstest]
    #[case::nothing("")]
    #[case::only_an_ending(".fifo")]
    #[case::a_dot("media.slow")]
    #[case::a_space("slow jobs")]
    #[case::too_long(&"a".repeat(81))]
    #[case::another_service("arn:aws:sns:eu-west-1:123456789012:slow")]
    #[case::no_region("arn:aws:sqs::123456789012:slow")]
    #[case::a_subscription("arn:aws:sqs:eu-west-1:123456789012:slow:more")]
    #[case::another_scheme("sqs://sqs.eu-west-1.amazonaws.com/123456789012/slow")]
    #[case::a_password("https://me:word@sqs.eu-west-1.amazonaws.com/123456789012/slow")]
    #[case::a_query("https://sqs.eu-west-1.amazonaws.com/123456789012/slow?a=b")]
    #[case::no_queue("https://sqs.eu-west-1.amazonaws.com/")]
    fn what_no_queue_can_be_called_is_refused(#[case] text: &str) {
        let refused = Place::parse(text).unwrap_err().to_string();
        assert!(refused.contains("its URL or its ARN") && !refused.contains("word"), "{refused}");
    }
}
