//! A pass over a drain whose service another drain looks after: nothing is done, and that is told.

use std::{collections::BTreeMap, time::Duration};

use kube::{
    Client,
    api::{Api, ApiResource, DynamicObject, ListParams, ObjectMeta},
};
use worker_drain_plan::{observation::Failure, policy::Mode};

use super::{
    claims::{Claim, Verdict},
    context::{Context, Entry},
    events::Happening,
    guard::OrFailure,
    metrics::Key,
    pass::{Next, Subject, let_go},
    unwell::{self, Unwell},
};
use crate::{api::WorkerDrain, record::resource::call};

/// So often a drain that stands by sees whether it still has to.
const STANDS_BY: Duration = Duration::from_secs(15);

/// The other one's first look is under way, or about to be.
const SOON: Duration = Duration::from_secs(1);

/// So many drains are read at a time; each may have a status of 60 KiB.
const PAGE: u32 = 50;

/// What becomes of a pass over a drain that may not act; `None`: it may. Errors: the drains that there are could not be
/// read, or this one could not be written.
pub async fn instead(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    subject: &Subject,
) -> Result<Option<Next>, Failure> {
    match verdict(context, key, entry, subject).await? {
        Verdict::Free => Ok(None),
        Verdict::After(_) => Ok(Some(Next::After(SOON))),
        Verdict::Rival(rival) => stand_by(context, key, entry, subject, &rival).await.map(Some),
    }
}

async fn verdict(context: &Context, key: &Key, entry: &mut Entry, subject: &Subject) -> Result<Verdict, Failure> {
    let Subject { resource, spec, .. } = subject;
    let term = context.leadership.term();
    context.claims.know_all(term, || all(&context.client, &context.namespaces)).await?;
    context.claims.know(key, resource);
    if spec.policy.mode == Mode::Plan {
        return Ok(Verdict::Free);
    }
    let arn = match entry.outside.fleet(&spec.ecs, &context.limiters).await {
        OrFailure::There(fleet) => fleet.arn().await,
        OrFailure::Failure(failure) => Err(failure),
    };
    // Why there is none, the pass finds out, and tells.
    Ok(context.claims.judge(key, arn))
}

async fn stand_by(
    context: &Context,
    key: &Key,
    entry: &mut Entry,
    Subject { resource, .. }: &Subject,
    (namespace, name): &Key,
) -> Result<Next, Failure> {
    let message = format!(
        "the WorkerDrain {namespace}/{name} looks after the same service, so this one does nothing: delete one of the two. \
         This one takes over when the other one is gone"
    );
    if resource.metadata.deletion_timestamp.is_some() {
        let_go(&context.client, resource).await?;
        let note = format!("nothing was given back: the WorkerDrain {namespace}/{name} looks after the service");
        context.publish(resource, vec![Happening::normal("Withdrawn", key.1.as_str(), note)]);
        return Ok(Next::Gone);
    }
    let told = Unwell { reason: unwell::CONFLICT, subject: name.clone(), message };
    unwell::tell(context, entry, resource, &told).await?;
    context.metrics.forget(key);
    Ok(Next::After(STANDS_BY))
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
            all.extend(page.items.iter().filter_map(|drain| {
                let ObjectMeta { namespace, name, .. } = &drain.metadata;
                Some(((namespace.clone().unwrap_or_default(), name.clone()?), Claim::of(drain)?))
            }));
            next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                break;
            }
        }
    }
    Ok(all)
}
