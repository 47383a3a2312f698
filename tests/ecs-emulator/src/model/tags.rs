//! Tags of services. No other resource has any here.

use super::{ApiError, Operation, ServiceId, ServiceStatus, Time, World};

/// Tags of one resource (API: `TagResource`).
const MAX_TAGS: usize = 50;
/// Characters of a key and of a value.
const MAX_KEY: usize = 128;
const MAX_VALUE: usize = 256;
/// What a key and a value may have besides letters and numbers and spaces, in every service of AWS.
const SIGNS: &str = "+-=._:/@ ";

impl World {
    /// `TagResource`, by the ARN of a service. Tags that are not named stay as they are.
    pub fn tag_resource(&mut self, arn: &str, tags: &[(String, String)], now: Time) -> Result<(), ApiError> {
        self.call(Operation::TagResource, now, |world| {
            let id = world.tagged(arn)?;
            for (key, value) in tags {
                check(key, value)?;
            }
            let known = &mut world.state.services[id.0].tags;
            let mut all = known.clone();
            all.extend(tags.iter().cloned());
            if all.len() > MAX_TAGS {
                return Err(ApiError::invalid(format!("A resource can have at most {MAX_TAGS} tags.")));
            }
            *known = all;
            Ok(())
        })
    }

    /// `UntagResource`. A key that the service has not is no error.
    pub fn untag_resource(&mut self, arn: &str, keys: &[String], now: Time) -> Result<(), ApiError> {
        self.call(Operation::UntagResource, now, |world| {
            let id = world.tagged(arn)?;
            world.state.services[id.0].tags.retain(|key, _| !keys.contains(key));
            Ok(())
        })
    }

    /// The service of an ARN. That of before 2021, without the cluster, is refused.
    fn tagged(&self, arn: &str) -> Result<ServiceId, ApiError> {
        let Some((_, path)) = arn.split_once(":service/") else {
            return Err(ApiError::invalid(format!("Tags of {arn} are not modelled.")));
        };
        let Some((cluster, name)) = path.split_once('/') else {
            return Err(ApiError::invalid("Long arn format must be used for tagging operations"));
        };
        let service = self.state.service(cluster, name).filter(|service| service.status != ServiceStatus::Inactive);
        let is_of_here = |id: &ServiceId| {
            let service = &self.state.services[id.0];
            self.knobs.service_arn(&service.cluster, &service.name) == arn
        };
        service.map(|service| service.id).filter(is_of_here).ok_or_else(ApiError::service_not_found)
    }
}

fn check(key: &str, value: &str) -> Result<(), ApiError> {
    let is_fine = |text: &str| text.chars().all(|sign| sign.is_alphanumeric() || SIGNS.contains(sign));
    let is_ours = key.get(..4).is_none_or(|start| !start.eq_ignore_ascii_case("aws:"));
    let fits = !key.is_empty() && key.chars().count() <= MAX_KEY && value.chars().count() <= MAX_VALUE;
    if fits && is_ours && is_fine(key) && is_fine(value) {
        Ok(())
    } else {
        Err(ApiError::invalid(format!("Invalid tag {key:?} with value {value:?}.")))
    }
}
