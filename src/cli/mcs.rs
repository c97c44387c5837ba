//! Arguments about the Multi-Cluster Services API.

use std::sync::Arc;

use clap::{ArgAction, builder::BoolishValueParser};
use tracing::warn;

use crate::model::mcs::{Api, GROUP, Mcs, VERSION};

/// What of the Multi-Cluster Services API is in force; istiod's names and meanings, and off like there.
#[derive(Debug, clap::Args)]
pub struct McsArgs {
    /// Clients of other clusters get a cluster's endpoints of a service only where a ServiceExport of that cluster offers it.
    #[arg(long, env = "ENABLE_MCS_SERVICE_DISCOVERY", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_service_discovery: bool,
    /// Services that a ServiceImport of some cluster names are also called by NAME.NAMESPACE.svc.clusterset.local, at the import's
    /// addresses. Means nothing without --enable-mcs-service-discovery.
    #[arg(long, env = "ENABLE_MCS_HOST", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_host: bool,
    /// Only under that name do endpoints cross: those of hosts in the clusters' own domain stay within each cluster. Means nothing
    /// without --enable-mcs-service-discovery and --enable-mcs-host.
    #[arg(long, env = "ENABLE_MCS_CLUSTER_LOCAL", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_cluster_local: bool,
    /// Every Service gets a ServiceExport, in every cluster that landbridge writes to and where that kind is installed; but for those that
    /// the mesh's serviceSettings make local to their cluster.
    #[arg(long, env = "ENABLE_MCS_AUTO_EXPORT", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_auto_export: bool,
    /// The API group in which ServiceExports and ServiceImports are read.
    #[arg(long, env = "MCS_API_GROUP", default_value = GROUP, value_parser = group)]
    mcs_api_group: Arc<str>,
    /// Its version.
    #[arg(long, env = "MCS_API_VERSION", default_value = VERSION, value_parser = version)]
    mcs_api_version: Arc<str>,
}

// === impl McsArgs ===

impl McsArgs {
    /// What of the API is in force, where it is, and whether a ServiceExport is made for every Service. A variable without those that
    /// it needs is named in the log.
    pub fn resolve(self) -> (Mcs, Api, bool) {
        let steps = [
            ("ENABLE_MCS_SERVICE_DISCOVERY", self.enable_mcs_service_discovery, Mcs::Exports),
            ("ENABLE_MCS_HOST", self.enable_mcs_host, Mcs::Hosts),
            ("ENABLE_MCS_CLUSTER_LOCAL", self.enable_mcs_cluster_local, Mcs::ClusterLocal),
        ];
        let mut in_force = Mcs::Off;
        let mut missing = None;
        for (variable, is_on, step) in steps {
            match missing {
                None if is_on => in_force = step,
                None => missing = Some(variable),
                Some(missing) if is_on => {
                    warn!("{variable} means nothing without {missing}, as in istiod; set both, or none");
                }
                Some(_) => {}
            }
        }
        let api = Api { group: self.mcs_api_group, version: self.mcs_api_version };
        (in_force, api, self.enable_mcs_auto_export)
    }
}

/// What is a part of the API's paths. A variable that is there and empty would be a mistake in istiod; it says nothing here.
pub(super) fn group(text: &str) -> Result<Arc<str>, String> {
    part(text, GROUP)
}

fn version(text: &str) -> Result<Arc<str>, String> {
    part(text, VERSION)
}

fn part(text: &str, default: &str) -> Result<Arc<str>, String> {
    if text.is_empty() {
        return Ok(default.into());
    }
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    if !text.bytes().all(plain) {
        return Err(format!("write lower-case letters, digits, dots and dashes, such as {default}"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        mcs: McsArgs,
    }

    fn resolve(words: &[&str]) -> Mcs {
        Command::try_parse_from(["serve"].iter().chain(words)).unwrap().mcs.resolve().0
    }

    #[test]
    fn flags_are_off_until_they_are_given() {
        assert_eq!(resolve(&[]), Mcs::Off);
        let exports = "--enable-mcs-service-discovery";
        for words in [&[exports][..], &[exports, "1"], &["--enable-mcs-service-discovery=TRUE"]] {
            assert_eq!(resolve(words), Mcs::Exports, "{words:?}");
        }
        assert_eq!(resolve(&["--enable-mcs-service-discovery=0"]), Mcs::Off);
    }

    #[test]
    fn the_api_is_where_its_controller_serves_it() {
        let parse = |words: &[&str]| {
            let command = Command::try_parse_from(["serve"].iter().chain(words)).ok()?;
            let (_, Api { group, version }, _) = command.mcs.resolve();
            Some(format!("{group}/{version}"))
        };
        for (words, expected) in [
            (&[][..], Some("multicluster.x-k8s.io/v1alpha1")),
            (&["--mcs-api-version=v1beta1"], Some("multicluster.x-k8s.io/v1beta1")),
            (&["--mcs-api-group=net.gke.io", "--mcs-api-version=v1"], Some("net.gke.io/v1")),
            (&["--mcs-api-group=", "--mcs-api-version="], Some("multicluster.x-k8s.io/v1alpha1")),
            (&["--mcs-api-group=net.gke.io/v1"], None),
            (&["--mcs-api-version=v1?x"], None),
        ] {
            assert_eq!(parse(words).as_deref(), expected, "{words:?}");
        }
    }

    #[test]
    fn a_flag_means_nothing_without_those_that_it_needs() {
        let flag = |is_on: bool, name: &'static str| is_on.then_some(name);
        for given in 0..8 {
            let words = [
                flag(given & 1 > 0, "--enable-mcs-service-discovery"),
                flag(given & 2 > 0, "--enable-mcs-host"),
                flag(given & 4 > 0, "--enable-mcs-cluster-local"),
            ];
            let expected = match given {
                7 => Mcs::ClusterLocal,
                3 => Mcs::Hosts,
                1 | 5 => Mcs::Exports,
                _ => Mcs::Off,
            };
            let words: Vec<_> = words.into_iter().flatten().collect();
            assert_eq!(resolve(&words), expected, "{words:?}");
        }
    }
}
