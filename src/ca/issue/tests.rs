use proptest::prelude::*;
use time::macros::datetime;
use time::{Date, Duration, Time};
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::X509Certificate;

use super::*;
use crate::ca::key::KeyType;
use crate::ca::testing::{mk_authority, mk_root};

fn mk_san() -> impl Strategy<Value = San> {
    prop_oneof![
        "[a-z0-9.-]{1,150}".prop_map(San::Dns),
        "spiffe://[a-z.]{1,40}/ns/[a-z]{1,60}/sa/[a-z0-9-]{1,60}".prop_map(San::Uri),
        any::<std::net::IpAddr>().prop_map(San::Ip),
    ]
}

/// Years on both sides of the change of format in 2050.
fn mk_time() -> impl Strategy<Value = OffsetDateTime> {
    (1950i32..2200, 1u16..=365, 0u8..24, 0u8..60, 0u8..60, 0u32..1_000_000_000).prop_map(
        |(year, day, hour, minute, second, nano)| {
            let time = Time::from_hms_nano(hour, minute, second, nano).unwrap();
            OffsetDateTime::new_utc(Date::from_ordinal_date(year, day).unwrap(), time)
        },
    )
}

fn mk_role() -> impl Strategy<Value = Role> {
    prop_oneof![Just(Role::Leaf), any::<Option<u8>>().prop_map(|path_len| Role::Ca { path_len })]
}

/// The names as a strict parser reads them.
fn sans(cert: &X509Certificate<'_>) -> Vec<San> {
    let read = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(name) => San::Dns((*name).to_owned()),
        GeneralName::URI(uri) => San::Uri((*uri).to_owned()),
        GeneralName::IPAddress(bytes) => San::Ip(match bytes.len() {
            4 => <[u8; 4]>::try_from(*bytes).unwrap().into(),
            _ => <[u8; 16]>::try_from(*bytes).unwrap().into(),
        }),
        other => panic!("{other:?}"),
    };
    let names = cert.subject_alternative_name().unwrap();
    names.map(|names| names.value.general_names.iter().map(read).collect()).unwrap_or_default()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Everything that goes in is what a parser of others reads out, and the signature is over all of it.
    #[test]
    fn a_strict_parser_reads_back_every_field(
        organization in "\\PC{0,200}",
        subject in prop::option::of("\\PC{1,64}"),
        sans_in in prop::collection::vec(mk_san(), 0..12),
        key_id_in in prop::option::of(prop::collection::vec(any::<u8>(), 1..40)),
        (not_before, not_after, role) in (mk_time(), mk_time(), mk_role()),
    ) {
        let issuer_key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let issuer_name = name(&organization, "issuer");
        let subject_name = subject.as_ref().map_or(EMPTY_NAME.to_vec(), |cn| name("mesh", cn));
        let template = Template {
            subject: &subject_name,
            public_key_info: key.public_key_info(),
            sans: &sans_in,
            not_before,
            not_after,
            role: role.clone(),
        };
        let issuer = Issuer { key: &issuer_key, subject: &issuer_name, key_id: key_id_in.as_deref() };
        let der = issue(&template, issuer).unwrap();

        let (rest, cert) = X509Certificate::from_der(&der).unwrap();
        prop_assert!(rest.is_empty());
        prop_assert_eq!(cert.version().0, 2);
        prop_assert_eq!(cert.raw_serial().len(), 16);
        prop_assert!((0x40..0x80).contains(&cert.raw_serial()[0]), "positive, and never shorter");
        prop_assert_eq!(cert.issuer().as_raw(), &issuer_name);
        let organization_out = cert.issuer().iter_organization().next().unwrap();
        prop_assert_eq!(organization_out.as_str().unwrap(), organization);
        prop_assert_eq!(cert.subject().as_raw(), &subject_name);
        prop_assert_eq!(cert.public_key().raw, key.public_key_info());
        for (read, written) in [(cert.validity().not_before, not_before), (cert.validity().not_after, not_after)] {
            prop_assert_eq!(read.timestamp(), written.unix_timestamp());
            prop_assert_eq!(read.is_utctime(), written.year() < 2050);
        }
        prop_assert_eq!(&cert.signature_algorithm, &cert.tbs_certificate.signature);
        let (_, issuer_info) = SubjectPublicKeyInfo::from_der(issuer_key.public_key_info()).unwrap();
        prop_assert!(cert.verify_signature(Some(&issuer_info)).is_ok());

        cert.extensions_map().expect("no extension twice");
        prop_assert_eq!(sans(&cert), sans_in.clone());
        let mut found = Vec::new();
        for extension in cert.extensions() {
            let critical = extension.critical;
            match extension.parsed_extension() {
                ParsedExtension::KeyUsage(usage) => {
                    let expected = if matches!(role, Role::Leaf) { 0b101 } else { 0b110_0000 };
                    prop_assert_eq!((usage.flags, critical), (expected, true));
                }
                ParsedExtension::ExtendedKeyUsage(usage) => {
                    prop_assert!(usage.server_auth && usage.client_auth && !usage.any && usage.other.is_empty());
                    prop_assert!(!critical && matches!(role, Role::Leaf));
                }
                ParsedExtension::BasicConstraints(constraints) => {
                    let read = (constraints.ca, constraints.path_len_constraint);
                    let expected = match role {
                        Role::Leaf => (false, None),
                        Role::Ca { path_len } => (true, path_len.map(u32::from)),
                    };
                    prop_assert_eq!((read, critical), (expected, true));
                }
                ParsedExtension::SubjectKeyIdentifier(id) => {
                    prop_assert_eq!(id.0, &key_id(key.public_key_info())[..]);
                    prop_assert!(!critical && !matches!(role, Role::Leaf));
                }
                ParsedExtension::AuthorityKeyIdentifier(id) => {
                    prop_assert_eq!(id.key_identifier.as_ref().map(|id| id.0), key_id_in.as_deref());
                    prop_assert!(!critical && id.authority_cert_issuer.is_none() && id.authority_cert_serial.is_none());
                }
                ParsedExtension::SubjectAlternativeName(_) => prop_assert_eq!(critical, subject.is_none()),
                other => panic!("{other:?}"),
            }
            found.push(extension.oid.to_id_string());
        }
        let optional = usize::from(key_id_in.is_some()) + usize::from(!sans_in.is_empty());
        // Key usage, basic constraints, and extended key usage or the subject's key identifier.
        prop_assert_eq!(found.len(), 3 + optional);
    }
}

/// The clearest judge is the one that everybody has.
#[test]
fn openssl_verifies_and_prints_what_we_write() {
    let root = mk_root("root");
    for (key_type, algorithm) in
        [(KeyType::EcdsaP256, "ecdsa-with-SHA256"), (KeyType::Rsa2048, "sha256WithRSAEncryption")]
    {
        let signer = PrivateKey::generate(key_type).unwrap();
        let now = OffsetDateTime::now_utc();
        let template = Template {
            subject: &name("mesh", "intermediate"),
            public_key_info: signer.public_key_info(),
            sans: &[],
            not_before: now - Duration::hours(1),
            not_after: datetime!(2050-01-01 0:00 UTC),
            role: Role::Ca { path_len: Some(0) },
        };
        let issuer =
            Issuer { key: &root.key, subject: &root.cert.subject_raw, key_id: root.cert.key_id.as_deref() };
        let intermediate = issue(&template, issuer).unwrap();
        let id = key_id(signer.public_key_info());
        let issuer = Issuer { key: &signer, subject: template.subject, key_id: Some(&id) };
        let leaf_key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
        let uri = San::Uri("spiffe://cluster.local/ns/production/sa/backend".to_owned());
        let template = Template {
            subject: EMPTY_NAME,
            public_key_info: leaf_key.public_key_info(),
            sans: &[uri],
            not_before: now - Duration::hours(1),
            not_after: now + Duration::hours(1),
            role: Role::Leaf,
        };
        let leaf = issue(&template, issuer).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let write = |file: &str, text: &str| std::fs::write(dir.path().join(file), text).unwrap();
        write("root", &root.cert.to_pem());
        write("intermediate", &crate::ca::cert::to_pem(&intermediate));
        write("leaf", &crate::ca::cert::to_pem(&leaf));
        write("key", &leaf_key.to_pem().unwrap());
        let script =
            "openssl verify -x509_strict -purpose sslclient -CAfile root -untrusted intermediate leaf
            openssl x509 -in leaf -noout -text
            openssl pkey -in key -check -noout
            test \"$(openssl pkey -in key -pubout)\" = \"$(openssl x509 -in leaf -noout -pubkey)\"";
        let outcome = std::process::Command::new("bash")
            .args(["-ec", script])
            .current_dir(dir.path())
            .output()
            .unwrap();
        let text = String::from_utf8(outcome.stdout).unwrap();
        assert!(outcome.status.success(), "{text}{}", String::from_utf8_lossy(&outcome.stderr));
        for expected in [
            "leaf: OK",
            algorithm,
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/production/sa/backend",
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
        ] {
            assert!(text.contains(expected), "{expected} not in:\n{text}");
        }
    }
}

#[test]
fn serial_numbers_are_not_repeated() {
    let authority = mk_authority(&mk_root("root"), "one", Duration::days(1));
    let key = PrivateKey::generate(KeyType::EcdsaP256).unwrap();
    let serials: std::collections::HashSet<Vec<u8>> = (0..100)
        .map(|_| {
            let issued =
                authority.issue(key.public_key_info(), &[], std::time::Duration::from_secs(9)).unwrap();
            X509Certificate::from_der(&issued.der).unwrap().1.raw_serial().to_vec()
        })
        .collect();
    assert_eq!(serials.len(), 100);
}
