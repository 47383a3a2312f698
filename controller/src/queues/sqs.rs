//! Counting the messages of Amazon SQS queues: `GetQueueUrl`, which is remembered, and `GetQueueAttributes`.
//!
//! Nothing is looked for or connected to before the first count, so a drain without a gate never uses SQS.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use aws_config::SdkConfig;
use aws_sdk_sqs::{
    Client,
    config::{Builder, Region, retry::RetryConfig},
    error::{ProvideErrorMetadata, SdkError},
    operation::{
        get_queue_attributes::{GetQueueAttributesError, builders::GetQueueAttributesFluentBuilder},
        get_queue_url::GetQueueUrlError,
    },
    types::QueueAttributeName::{
        self, ApproximateNumberOfMessages as Visible, ApproximateNumberOfMessagesDelayed as Delayed,
        ApproximateNumberOfMessagesNotVisible as NotVisible,
    },
};
use futures::{FutureExt, StreamExt, stream};
use jiff::SignedDuration;
use tokio::sync::OnceCell;
use worker_drain_plan::{
    QueueName,
    observation::{Delivered, Failure, FailureKind, QueueCount, Seen},
};

use super::name::{Key, Place};
use crate::{
    aws::{self, Access, Asked, Reach, Timeouts},
    clock::Clock,
};

/// The numbers "may not achieve consistency until at least 1 minute after the producers stop sending messages" (API
/// reference, `GetQueueAttributes`).
pub const SETTLES_IN: SignedDuration = SignedDuration::from_secs(60);

/// So many queues are counted at once.
const AT_ONCE: usize = 8;

/// How SQS is reached, and how far its numbers are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqsSettings {
    /// Through which identity, and in which Region unless a queue's own name says so.
    pub access: Access,
    /// How long calls may take. All of it together must be less than what makes a count too old to be used (15 s).
    pub timeouts: Timeouts,
    /// How far apart two counts must be that both find a queue empty; [`SETTLES_IN`], unless a test has no time for it.
    pub settles_in: SignedDuration,
}

impl SqsSettings {
    /// The settings that the documentation promises.
    pub fn new(access: Access) -> Self {
        let [connect, attempt, operation] = [2, 3, 6].map(Duration::from_secs);
        Self { access, timeouts: Timeouts { connect, attempt, operation }, settles_in: SETTLES_IN }
    }
}

/// Amazon SQS, of which nothing is asked but how many messages there are.
pub struct Sqs {
    settings: SqsSettings,
    clock: Arc<dyn Clock>,
    link: OnceCell<Link>,
    /// The URLs of queues that are named by something else.
    urls: Mutex<BTreeMap<QueueName, String>>,
}

struct Link {
    client: Client,
    reach: Reach,
}

/// One of the two calls that are made, for one queue.
#[derive(Clone, Copy)]
struct Call<'a> {
    operation: &'static str,
    queue: &'a QueueName,
    place: &'a Place,
    link: &'a Link,
}

impl Sqs {
    /// Nothing is connected to, nor is any configuration looked for, before the first count.
    pub fn new(settings: SqsSettings, clock: Arc<dyn Clock>) -> Self {
        Self { settings, clock, link: OnceCell::new(), urls: Mutex::default() }
    }

    /// As [`Sqs::new`], with a configuration that was found already: its Region, credentials and endpoint count, and those of
    /// `settings` only appear in messages. Errors: it has no Region.
    pub fn with_config(settings: SqsSettings, config: &SdkConfig, clock: Arc<dyn Clock>) -> Result<Self, Failure> {
        let link = Link::new(&settings, config)?;
        Ok(Self { link: OnceCell::from(link), ..Self::new(settings, clock) })
    }

    /// Counts these queues, as [`Workers::count`](crate::workers::Workers::count) wants it.
    pub async fn count(&self, queues: &BTreeSet<QueueName>) -> BTreeMap<QueueName, Seen<QueueCount>> {
        let counts = queues.iter().map(|queue| self.see(queue).boxed()).collect::<Vec<_>>();
        stream::iter(counts).buffer_unordered(AT_ONCE).collect().await
    }

    async fn see(&self, queue: &QueueName) -> (QueueName, Seen<QueueCount>) {
        let at = self.clock.now();
        let seen = match self.read(queue).await {
            Ok(value) => Seen::Ok { value, at },
            Err(failure) => Seen::Err { failure, at: self.clock.now() },
        };
        (queue.clone(), seen)
    }

    async fn read(&self, queue: &QueueName) -> Result<QueueCount, Failure> {
        let place = Place::parse(queue.as_str()).map_err(|why| Failure::new(FailureKind::Invalid, why.to_string()))?;
        let link = self.link.get_or_try_init(|| self.connect()).await?;
        let call = |operation| Call { operation, queue, place: &place, link };
        let url = self.url(call("GetQueueUrl")).await?;
        let asked = call("GetQueueAttributes");
        let request = link.client.get_queue_attributes().queue_url(url);
        let request =
            [Visible, NotVisible, Delayed].into_iter().fold(request, GetQueueAttributesFluentBuilder::attribute_names);
        let answer = request.customize().config_override(asked.elsewhere()).send().await;
        let answer = answer.map_err(|error| {
            let gone = error.as_service_error().is_some_and(GetQueueAttributesError::is_queue_does_not_exist);
            if gone {
                // Made again, it may have another URL.
                self.urls().remove(queue);
            }
            asked.failed(&error, gone)
        })?;
        let number = |name: QueueAttributeName| {
            let text = answer.attributes().and_then(|all| all.get(&name));
            let number = text.and_then(|text| text.parse::<u64>().ok());
            number.ok_or_else(|| {
                let message = format!("SQS GetQueueAttributes for {queue} did not return {name}");
                Failure::new(FailureKind::Unreachable, message)
            })
        };
        Ok(QueueCount {
            counted_at: self.clock.now(),
            ready: number(Visible)?.saturating_add(number(Delayed)?),
            delivered: Delivered::Counted(number(NotVisible)?),
            known: true,
            settles_in: self.settings.settles_in,
        })
    }

    async fn connect(&self) -> Result<Link, Failure> {
        Link::new(&self.settings, &aws::configure(&self.settings.access, self.settings.timeouts).await)
    }

    async fn url(&self, call: Call<'_>) -> Result<String, Failure> {
        let (name, account) = match &call.place.key {
            Key::Url(url) => return Ok(url.clone()),
            Key::Name { name, account } => (name, account),
        };
        let known = self.urls().get(call.queue).cloned();
        if let Some(url) = known {
            return Ok(url);
        }
        let request = call.link.client.get_queue_url().queue_name(name);
        let request = request.set_queue_owner_aws_account_id(account.clone());
        let answer = request.customize().config_override(call.elsewhere()).send().await.map_err(|error| {
            let gone = error.as_service_error().is_some_and(GetQueueUrlError::is_queue_does_not_exist);
            call.failed(&error, gone)
        })?;
        let Some(url) = answer.queue_url else {
            let message = format!("SQS GetQueueUrl for {} did not return its URL", call.queue);
            return Err(Failure::new(FailureKind::Unreachable, message));
        };
        self.urls().insert(call.queue.clone(), url.clone());
        Ok(url)
    }

    fn urls(&self) -> MutexGuard<'_, BTreeMap<QueueName, String>> {
        self.urls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Link {
    fn new(settings: &SqsSettings, config: &SdkConfig) -> Result<Self, Failure> {
        let Some(region) = config.region().map(ToString::to_string) else {
            let message = "no AWS Region for SQS: set fleet.ecs.region, AWS_REGION, or the profile's region";
            return Err(Failure::new(FailureKind::Invalid, message));
        };
        let Access { region: _, role_arn, profile } = settings.access.clone();
        let reach = Reach { region, role_arn, profile, endpoint: aws::endpoint(config, "SQS") };
        // The next count asks again anyway.
        let sqs = Builder::from(config)
            .retry_config(RetryConfig::standard().with_max_attempts(2))
            .timeout_config(aws::limits(settings.timeouts))
            .build();
        Ok(Self { client: Client::from_conf(sqs), reach })
    }
}

impl Call<'_> {
    /// The Region in the queue's own name.
    fn elsewhere(&self) -> Builder {
        let changed = aws_sdk_sqs::Config::builder();
        match self.place.region.clone() {
            Some(region) => changed.region(Region::new(region)),
            None => changed,
        }
    }

    fn failed<E>(&self, error: &SdkError<E>, gone: bool) -> Failure
    where
        E: ProvideErrorMetadata + Error + Send + Sync + 'static,
    {
        let Self { operation, queue, place, link: Link { reach, .. } } = *self;
        let reach = Reach { region: place.region.clone().unwrap_or_else(|| reach.region.clone()), ..reach.clone() };
        if !gone {
            let what = format!("the queue {queue}");
            return aws::describe(&Asked { service: "SQS", prefix: "sqs", operation, what, reach: &reach }, error);
        }
        let message = format!(
            "there is no SQS queue of that name in Region {}{} for {}: write the name as SQS has it (Celery puts \
             queue_name_prefix before it), its URL or its ARN, and check fleet.ecs.region; workers.http whose queues are not \
             on SQS can have no gate",
            reach.region,
            reach.endpoint_text(),
            reach.caller(),
        );
        Failure::new(FailureKind::NotFound, message)
    }
}
