//! `outlierDetection` of DestinationRule and mesh config.

use serde::Deserialize;

use super::{
    check,
    finding::{Finding, Invalid, Result, Warnings},
    wire::{Flag, Int, Span},
};
use crate::model::destination_rule::OutlierDetection;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Wire {
    #[serde(rename = "consecutive5xxErrors")]
    consecutive_5xx_errors: Option<Int>,
    consecutive_gateway_errors: Option<Int>,
    split_external_local_origin_errors: Flag,
    consecutive_local_origin_failures: Option<Int>,
    interval: Option<Span>,
    base_ejection_time: Option<Span>,
    max_ejection_percent: Option<Int>,
    min_health_percent: Option<Int>,
    consecutive_errors: Option<Int>,
}

pub fn convert(at: &str, wire: &Wire, warnings: &mut Warnings) -> Result<OutlierDetection> {
    let field = |name: &str| format!("{at}.{name}");
    if wire.consecutive_errors.is_some() {
        warnings.push(Finding::new(
            field("consecutiveErrors"),
            "is ignored: Istio removed it",
            "write consecutive5xxErrors, or consecutiveGatewayErrors for 502, 503 and 504 only",
        ));
    }
    if wire.consecutive_local_origin_failures.is_some() && !wire.split_external_local_origin_errors.0 {
        return Err(Invalid::new(
            field("consecutiveLocalOriginFailures"),
            "needs splitExternalLocalOriginErrors: true",
            "add splitExternalLocalOriginErrors: true, or remove the field",
        ));
    }
    Ok(OutlierDetection {
        consecutive_5xx: check::number(&field("consecutive5xxErrors"), wire.consecutive_5xx_errors)?,
        consecutive_gateway_errors: check::number(
            &field("consecutiveGatewayErrors"),
            wire.consecutive_gateway_errors,
        )?,
        split_local_origin: wire.split_external_local_origin_errors.0,
        consecutive_local_origin: check::number(
            &field("consecutiveLocalOriginFailures"),
            wire.consecutive_local_origin_failures,
        )?,
        interval: check::some_duration(&field("interval"), wire.interval.as_ref(), warnings)?,
        base_ejection_time: check::some_duration(
            &field("baseEjectionTime"),
            wire.base_ejection_time.as_ref(),
            warnings,
        )?,
        max_ejection_percent: check::percent(&field("maxEjectionPercent"), wire.max_ejection_percent)?,
        min_health_percent: check::percent(&field("minHealthPercent"), wire.min_health_percent)?,
    })
}
