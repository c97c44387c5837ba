//! Access logs as the mesh configuration says.

use landbridge_proto::envoy::{
    config::{
        accesslog::v3::{AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter},
        core::v3::{DataSource, SubstitutionFormatString, data_source, substitution_format_string::Format},
    },
    extensions::access_loggers::{
        file::v3::{FileAccessLog, file_access_log},
        stream::v3::{StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log},
    },
};
use prost_types::Struct;

use super::proto::{any, string};
use crate::model::mesh::MeshConfig;

/// Istio's default line.
const TEXT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
    %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
    \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
    %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
    \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
    %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

/// Istio's default fields when the encoding is JSON.
const JSON_FIELDS: &[(&str, &str)] = &[
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// The log of requests and connections; empty if the mesh has none.
pub fn access_log(mesh: &MeshConfig) -> Vec<AccessLog> {
    let Some(path) = mesh.access_log_file.as_deref().filter(|p| !p.is_empty()) else { return Vec::new() };
    // Opening /dev/stdout as a file fails for a proxy that runs as another user than the one that owns it, and Envoy
    // then rejects the whole listener (envoy.md 2). The stream loggers write to the descriptor that is already open.
    let (name, config) = match path {
        "/dev/stdout" => {
            let format = stdout_access_log::AccessLogFormat::LogFormat(log_format(mesh));
            let log = StdoutAccessLog { access_log_format: Some(format) };
            (
                "envoy.access_loggers.stdout",
                any("envoy.extensions.access_loggers.stream.v3.StdoutAccessLog", &log),
            )
        }
        "/dev/stderr" => {
            let format = stderr_access_log::AccessLogFormat::LogFormat(log_format(mesh));
            let log = StderrAccessLog { access_log_format: Some(format) };
            (
                "envoy.access_loggers.stderr",
                any("envoy.extensions.access_loggers.stream.v3.StderrAccessLog", &log),
            )
        }
        path => {
            let format = file_access_log::AccessLogFormat::LogFormat(log_format(mesh));
            let log = FileAccessLog { path: path.to_owned(), access_log_format: Some(format) };
            ("envoy.access_loggers.file", any("envoy.extensions.access_loggers.file.v3.FileAccessLog", &log))
        }
    };
    vec![AccessLog {
        name: name.to_owned(),
        filter: None,
        config_type: Some(access_log::ConfigType::TypedConfig(config)),
    }]
}

/// The listener's own log: connections that no filter chain takes, which nobody else would show.
pub fn listener_access_log(mesh: &MeshConfig) -> Vec<AccessLog> {
    let mut logs = access_log(mesh);
    for log in &mut logs {
        let flags = ResponseFlagFilter { flags: vec!["NR".to_owned()] };
        log.filter = Some(AccessLogFilter {
            filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(flags)),
        });
    }
    logs
}

fn log_format(mesh: &MeshConfig) -> SubstitutionFormatString {
    let own = mesh.access_log_format.as_deref().filter(|f| !f.is_empty());
    let format = if mesh.access_log_json {
        let own =
            own.and_then(|f| serde_json::from_str::<std::collections::BTreeMap<String, String>>(f).ok());
        let fields: Struct = match own {
            Some(own) => Struct { fields: own.into_iter().map(|(k, v)| (k, string(&v))).collect() },
            None => {
                Struct { fields: JSON_FIELDS.iter().map(|(k, v)| ((*k).to_owned(), string(v))).collect() }
            }
        };
        Format::JsonFormat(fields)
    } else {
        let text = own.unwrap_or(TEXT_FORMAT);
        let line_end = if text.ends_with('\n') { "" } else { "\n" };
        Format::TextFormatSource(DataSource {
            specifier: Some(data_source::Specifier::InlineString(format!("{text}{line_end}"))),
            ..Default::default()
        })
    };
    SubstitutionFormatString { format: Some(format), ..Default::default() }
}
