//! A reconciliation of a drain whose service another drain acts on: nothing is done, and that is reported.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta},
};
use worker_drain_plan::{
    observation::{Failure, FailureKind},
    policy::Mode,
};

use super::{
    context::{Context, Entry},
    events::DrainEvent,
    failure_status::{self, FailureStatus},
    fencing::OrFailure,
    finalizer::let_go,
    leftovers::{Leftovers, Work},
    metrics::Key,
    ownership::{Claim, Owner, Verdict},
    subject::{Next, Subject},
};
use crate::{
    api::WorkerDrain,
    clock::{Clock, SystemClock},
    record::{Record, api_server::call, pages::PageCache, resource::ResourceRecord},
};

/// So often a drain that stands by sees whether it still has to.
const STANDS_BY: Duration = Duration::from_secs(15);

/// The other one's first observation is under way, or about to be.
const SOON: Duration = Duration::from_secs(1);

/// So many drains are read at a time; each may have a status of 60 KiB.
const PAGE: u32 = 50;

/// What becomes of the reconciliation of a drain that may not act; `None`: it may. Errors: the drains that there are, or what this one
/// remembers, could not be read, or this one could not be written.
pub async fn instead(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    subject: &Subject,
) -> Result<Option<Next>, Failure> {
    let leftovers = Leftovers::of(&subject.record.load().await?);
    match verdict(context, key, subject, &leftovers).await? {
        Verdict::Free => Ok(None),
        Verdict::After(_) => Ok(Some(Next::After(SOON))),
        Verdict::Owner(owner) => stand_by(context, key, entry, subject, &owner, &leftovers).await.map(Some),
    }
}

async fn verdict(
    context: &Context,
    key: &Key,
    Subject { resource, spec, fleet, .. }: &Subject,
    leftovers: &Leftovers,
) -> Result<Verdict, Failure> {
    let term = context.leadership.term();
    context.ownership.know_all(term, || all(&context.client, &context.namespaces)).await?;
    if !context.ownership.know(key, Claim::of(resource, leftovers.work())) {
        return Ok(Verdict::Free);
    }
    let arn = match fleet {
        OrFailure::There(fleet) => fleet.arn().await,
        OrFailure::Failure(failure) => Err(failure.clone()),
    };
    // Why there is none, the reconciliation finds out and reports.
    let verdict = context.ownership.judge(key, arn);
    // One that does nothing needs nobody's leave.
    let looks_only = spec.policy.mode == Mode::Plan && !spec.policy.withdrawn;
    Ok(if looks_only { Verdict::Free } else { verdict })
}

async fn stand_by(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    Subject { resource, .. }: &Subject,
    owner: &Owner,
    leftovers: &Leftovers,
) -> Result<Next, Failure> {
    if resource.metadata.deletion_timestamp.is_some() {
        let_go(&context.client, resource).await?;
        context.publish(resource, vec![let_go_beside(key, owner, leftovers)]);
        return Ok(Next::Gone);
    }
    let status = FailureStatus {
        reason: failure_status::CONFLICT,
        subject: owner.drain.1.clone(),
        message: conflict(owner, leftovers),
    };
    failure_status::report(context, entry, resource, &status).await?;
    context.metrics.drains().stands_by(key, failure_status::CONFLICT, SystemClock.now());
    Ok(Next::After(STANDS_BY))
}

/// What helps one that stands by.
fn conflict(Owner { drain: (namespace, name), plans }: &Owner, leftovers: &Leftovers) -> String {
    let mut message = format!("the WorkerDrain {namespace}/{name} ");
    message.push_str(if *plans {
        "of the same service is in mode Plan, but took queues before that it alone can give back, so this one does nothing: \
         delete that one, and it gives them back, or set it to mode Enforce. This one takes over when the other one is gone, or \
         the tasks that it took them from are"
    } else {
        "acts on the same service, so this one does nothing: delete one of the two. This one takes over when the other \
         one is gone"
    });
    if leftovers.work() == Work::Taken {
        let taken = format!(
            ". If it is this one that is deleted, nobody gives back the queues that it took before from {}",
            leftovers.taken()
        );
        message.push_str(&taken);
    }
    message
}

/// What is reported of one that is deleted while it stands by. It gives nothing back: the other one may have cancelled the same
/// workers, and holds the same tasks.
fn let_go_beside(key: &Key, Owner { drain: (namespace, name), .. }: &Owner, leftovers: &Leftovers) -> DrainEvent {
    let whose = format!("the WorkerDrain {namespace}/{name} acts on the service");
    match leftovers.work() {
        Work::Nothing => DrainEvent::normal("Withdrawn", &key.1, format!("nothing was to be given back: {whose}")),
        Work::Held => {
            let note = format!("{whose}, and the holds of {} are left to it", leftovers.held());
            DrainEvent::normal("Withdrawn", &key.1, note)
        }
        Work::Taken => {
            DrainEvent::warning("Abandoned", &key.1, format!("{whose}, so nothing was given back; {leftovers}"))
        }
    }
}

/// The claims of all drains that are watched.
async fn all(client: &Client, namespaces: &[String]) -> Result<BTreeMap<Key, Claim>, Failure> {
    let resource = ApiResource::erase::<WorkerDrain>(&());
    let apis: Vec<Api<DynamicObject>> = if namespaces.is_empty() {
        vec![Api::all_with(client.clone(), &resource)]
    } else {
        let in_one = |namespace: &String| Api::namespaced_with(client.clone(), namespace, &resource);
        namespaces.iter().map(in_one).collect()
    };
    let mut all = BTreeMap::new();
    for api in apis {
        let mut next: Option<String> = None;
        loop {
            let params = ListParams { limit: Some(PAGE), continue_token: next, ..ListParams::default() };
            let page = call("list the WorkerDrains", api.list(&params)).await?;
            for drain in &page.items {
                let ObjectMeta { namespace, name, .. } = &drain.metadata;
                let (Some(name), Some(work)) = (name, work(client, drain).await?) else { continue };
                let key = (namespace.clone().unwrap_or_default(), name.clone());
                all.extend(Claim::of(drain, work).map(|claim| (key, claim)));
            }
            next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
    }
    Ok(all)
}

/// What a drain has to undo; `None`: what it remembers cannot be read, so that it cannot act. Errors: the API server does not
/// answer.
async fn work(client: &Client, drain: &DynamicObject) -> Result<Option<Work>, Failure> {
    let memory = match ResourceRecord::of(client, drain, PageCache::default(), SystemClock) {
        Ok(record) => record.load().await,
        Err(failure) => Err(failure),
    };
    match memory {
        Ok(memory) => Ok(Some(Leftovers::of(&memory).work())),
        Err(failure) if matches!(failure.kind, FailureKind::Invalid | FailureKind::Denied) => Ok(None),
        Err(failure) => Err(failure),
    }
}
