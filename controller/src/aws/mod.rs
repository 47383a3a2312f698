//! What every AWS service that is asked has in common: the configuration as the AWS command line finds it, with bounds, and
//! how failures are put into words.

mod access;
mod configure;
mod failure;

pub use self::access::{Access, Timeouts};
pub(crate) use self::{
    access::Reach,
    configure::{account_of, configure, endpoint, limits},
    failure::{Asked, describe},
};
