//! Arguments about the Multi-Cluster Services API.

use clap::{ArgAction, builder::BoolishValueParser};
use tracing::warn;

use crate::model::mcs::Mcs;

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
}

// === impl McsArgs ===

impl McsArgs {
    /// What of the API is in force. A variable without those that it needs is named in the log.
    pub fn resolve(self) -> Mcs {
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
        in_force
    }
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
        Command::try_parse_from(["serve"].iter().chain(words)).unwrap().mcs.resolve()
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
