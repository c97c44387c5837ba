//! Builders of resources: the room is laid out here; the builders follow.

pub struct Built {
    pub name: std::sync::Arc<str>,
    pub message: Vec<u8>,
    pub waits_for: Option<std::sync::Arc<str>>,
    pub sources: Vec<crate::model::ObjectKey>,
}
use crate::{index::Index, model::service::Service, view::*};
pub mod cds {
    use super::*;
    pub fn fixed(_: &Index, _: &ClusterView) -> Vec<Built> {
        vec![]
    }
    pub fn inbound(_: &Index, _: &InboundView) -> Vec<Built> {
        vec![]
    }
    pub fn service(_: &Index, _: &ClusterView, _: &Service) -> Vec<Built> {
        vec![]
    }
}
pub mod eds {
    use super::*;
    pub fn service(_: &Index, _: &EndpointView, _: &Service) -> Vec<Built> {
        vec![]
    }
}
pub mod rds {
    use super::*;
    pub fn port(_: &Index, _: &RouteView, _: u16) -> Vec<Built> {
        vec![]
    }
}
pub mod lds {
    use super::*;
    pub mod outbound {
        use super::*;
        pub fn fixed(_: &Index, _: &ListenerView) -> Vec<Built> {
            vec![]
        }
        pub fn port(_: &Index, _: &ListenerView, _: u16) -> Vec<Built> {
            vec![]
        }
    }
    pub mod inbound {
        use super::*;
        pub fn build(_: &Index, _: &InboundView) -> Vec<Built> {
            vec![]
        }
    }
    pub mod gateway {
        use super::*;
        pub fn build(_: &Index, _: &GatewayView) -> Vec<Built> {
            vec![]
        }
    }
}
