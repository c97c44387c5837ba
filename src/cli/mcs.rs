//! Arguments about the Multi-Cluster Services API.

use clap::{ArgAction, builder::BoolishValueParser};

use crate::model::mcs::Mcs;

/// What of the Multi-Cluster Services API is in force; istiod's names and meanings, and off like there.
#[derive(Debug, clap::Args)]
pub struct McsArgs {
    /// Services that a ServiceImport of some cluster names are also called by NAME.NAMESPACE.svc.clusterset.local, at the import's
    /// addresses.
    #[arg(long, env = "ENABLE_MCS_HOST", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_host: bool,
    /// Clients of other clusters get a cluster's endpoints of a service only where a ServiceExport of that cluster offers it.
    #[arg(long, env = "ENABLE_MCS_SERVICE_DISCOVERY", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_service_discovery: bool,
    /// And only under that name: those of hosts in the clusters' own domain stay within each cluster. Means nothing without
    /// --enable-mcs-service-discovery.
    #[arg(long, env = "ENABLE_MCS_CLUSTER_LOCAL", default_value = "false", value_parser = BoolishValueParser::new(), action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    enable_mcs_cluster_local: bool,
}

impl From<McsArgs> for Mcs {
    fn from(args: McsArgs) -> Self {
        let McsArgs { enable_mcs_host, enable_mcs_service_discovery, enable_mcs_cluster_local } = args;
        Self {
            hosts: enable_mcs_host,
            discovery: enable_mcs_service_discovery,
            cluster_local: enable_mcs_cluster_local,
        }
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

    #[test]
    fn flags_are_off_until_they_are_given() {
        let parse = |words: &[&str]| {
            let command = Command::try_parse_from(["serve"].iter().chain(words)).unwrap();
            Mcs::from(command.mcs)
        };
        assert_eq!(parse(&[]), Mcs::default());
        let hosts = Mcs { hosts: true, ..Mcs::default() };
        for words in [&["--enable-mcs-host"][..], &["--enable-mcs-host", "1"], &["--enable-mcs-host=TRUE"]] {
            assert_eq!(parse(words), hosts, "{words:?}");
        }
        let both = ["--enable-mcs-service-discovery", "--enable-mcs-cluster-local", "--enable-mcs-host=0"];
        assert_eq!(parse(&both), Mcs { hosts: false, discovery: true, cluster_local: true });
    }
}
