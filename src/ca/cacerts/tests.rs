use std::process::Command;
use std::time::Duration;

use time::OffsetDateTime;

use super::*;
use crate::ca::issue::San;
use crate::ca::testing::{mk_intermediate, mk_root, write_cacerts};

/// Runs a shell script with the real openssl.
fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("bash").args(["-ec", script]).current_dir(dir).output().unwrap();
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}\n{text}");
    text
}

/// The lines that people copy from the manuals, with awkward names: several DCs, two OUs, printable strings.
const OPENSSL: &str = r#"
ext() { printf "basicConstraints=critical,CA:TRUE${1}\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n"; }
$KEY root-key.pem
openssl req -x509 -new -sha256 -key root-key.pem -days 3650 -out root-cert.pem \
  -subj "/DC=com/DC=company/OU=a/OU=b/O=Company, Ltd./CN=Root CA" \
  -addext "keyUsage=critical,keyCertSign,cRLSign"
$KEY ca-key.pem
openssl req -new -sha256 -key ca-key.pem -subj "/DC=com/DC=company/OU=x/OU=y/CN=Intermediate" -out ca.csr
openssl x509 -req -sha256 -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 1825 \
  -out ca-cert.pem -extfile <(ext ,pathlen:0)
cat $CHAIN > cert-chain.pem
"#;

#[test]
fn files_made_by_openssl_are_taken_as_they_are_and_openssl_accepts_what_they_sign() {
    let pkcs8 = "k() { openssl genrsa -out $1 4096; }; KEY=k;";
    let pkcs1 = "k() { openssl genrsa -traditional -out $1 2048; }; KEY=k;";
    // Without -noout the file begins with a block EC PARAMETERS.
    let sec1 = "k() { openssl ecparam -name prime256v1 -genkey -out $1; }; KEY=k;";
    let p384 = "k() { openssl ecparam -name secp384r1 -genkey -noout -out $1; }; KEY=k;";
    let cases = [
        (pkcs8, "CHAIN='ca-cert.pem root-cert.pem';"),
        (pkcs1, "CHAIN=root-cert.pem;"),
        (sec1, "CHAIN='root-cert.pem ca-cert.pem';"),
        (p384, "CHAIN=ca-cert.pem;"),
    ];
    for (key, chain) in cases {
        let dir = tempfile::tempdir().unwrap();
        sh(dir.path(), &format!("{key}{chain}{OPENSSL}"));
        let authority =
            load(dir.path(), OffsetDateTime::now_utc()).unwrap_or_else(|error| panic!("{key}: {error}"));
        assert_eq!(authority.intermediates().len(), 1);

        let workload = PrivateKey::generate(Default::default()).unwrap();
        let san = San::Uri("spiffe://cluster.local/ns/a/sa/b".to_owned());
        let ttl = Duration::from_secs(24 * 3600);
        let leaf = authority.issue(workload.public_key_info(), &[san], ttl).unwrap();
        std::fs::write(dir.path().join("leaf.pem"), authority.chain_pem(&leaf.der)).unwrap();
        let text = sh(
            dir.path(),
            "openssl verify -x509_strict -purpose sslserver -CAfile root-cert.pem -untrusted leaf.pem leaf.pem
             openssl verify -x509_strict -purpose sslclient -CAfile root-cert.pem -untrusted leaf.pem leaf.pem
             openssl x509 -in leaf.pem -noout -text",
        );
        for expected in [
            "Subject: \n",
            "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/a/sa/b",
            "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
            "TLS Web Server Authentication, TLS Web Client Authentication",
            "X509v3 Basic Constraints: critical\n                CA:FALSE",
            "X509v3 Authority Key Identifier",
        ] {
            assert!(text.contains(expected), "{expected:?} not in {text}");
        }
        let days = (leaf.not_after - leaf.not_before).whole_seconds();
        assert_eq!(days, 24 * 3600 + 120, "backdated by two minutes");
    }
}

#[test]
fn the_kubernetes_tls_layout_is_read_too() {
    let dir = tempfile::tempdir().unwrap();
    let root = mk_root("root");
    let ca = mk_intermediate(&root, "ca", time::Duration::days(1));
    std::fs::write(dir.path().join("tls.crt"), ca.cert.to_pem() + &root.cert.to_pem()).unwrap();
    std::fs::write(dir.path().join("tls.key"), ca.key.to_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(dir.path().join("ca.crt"), root.cert.to_pem()).unwrap();
    let authority = load(dir.path(), OffsetDateTime::now_utc()).unwrap();
    assert_eq!(authority.signer().der, ca.cert.der);
}

#[test]
fn a_chain_over_two_intermediates_is_put_in_order() {
    let dir = tempfile::tempdir().unwrap();
    // openssl makes the middle one, because ours always have path length 0.
    sh(
        dir.path(),
        &format!(
            "k() {{ openssl ecparam -name prime256v1 -genkey -noout -out $1; }}; KEY=k; CHAIN=ca-cert.pem;{OPENSSL}
             mv ca-cert.pem middle.pem; mv ca-key.pem middle-key.pem
             openssl x509 -req -sha256 -in ca.csr -CA root-cert.pem -CAkey root-key.pem -CAcreateserial -days 1825 -out middle.pem -extfile <(ext)
             k ca-key.pem; openssl req -new -key ca-key.pem -subj /CN=low -out low.csr
             openssl x509 -req -sha256 -in low.csr -CA middle.pem -CAkey middle-key.pem -CAcreateserial -days 30 -out ca-cert.pem -extfile <(ext ,pathlen:0)
             cat root-cert.pem middle.pem > cert-chain.pem"
        ),
    );
    let authority = load(dir.path(), OffsetDateTime::now_utc()).unwrap();
    let subjects: Vec<_> = authority.intermediates().iter().map(|cert| cert.subject.clone()).collect();
    assert_eq!(subjects, ["CN=low", "DC=com, DC=company, OU=x, OU=y, CN=Intermediate"]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_file_and_the_reason() {
    let (root, other) = (mk_root("root"), mk_root("other"));
    let ca = mk_intermediate(&root, "ca", time::Duration::days(1));
    let expired = mk_intermediate(&root, "expired", time::Duration::minutes(-1));
    let below = mk_intermediate(&ca, "below", time::Duration::days(1));
    type Damage<'a> = &'a dyn Fn(&Path);
    let cases: [(&str, Damage<'_>, &[&str]); 9] = [
        (
            "absent",
            &|dir| std::fs::remove_file(dir.join(CA_KEY)).unwrap(),
            &["ca-key.pem missing", "landbridge ca intermediate"],
        ),
        (
            "key of another",
            &|dir| std::fs::write(dir.join(CA_KEY), other.key.to_pem().unwrap().as_bytes()).unwrap(),
            &["does not belong", "ECDSA"],
        ),
        (
            "key garbage",
            &|dir| std::fs::write(dir.join(CA_KEY), "x").unwrap(),
            &[CA_KEY, "no private key found"],
        ),
        (
            "half written",
            &|dir| std::fs::write(dir.join(CA_CERT), &ca.cert.to_pem()[..200]).unwrap(),
            &[CA_CERT, "does not end with its line"],
        ),
        (
            "empty root",
            &|dir| std::fs::write(dir.join(ROOT_CERT), "").unwrap(),
            &[ROOT_CERT, "no certificate found"],
        ),
        (
            "foreign root",
            &|dir| std::fs::write(dir.join(ROOT_CERT), other.cert.to_pem()).unwrap(),
            &["no certificate of the issuer", "add the missing intermediate"],
        ),
        ("expired", &|dir| write_cacerts(dir, &expired, &[&root]), &["CN=expired", "ended on"]),
        (
            "path length",
            &|dir| {
                write_cacerts(dir, &below, &[&root]);
                std::fs::write(dir.join(CERT_CHAIN), ca.cert.to_pem()).unwrap();
            },
            &["would be refused by peers"],
        ),
        ("no directory", &|dir| std::fs::remove_dir_all(dir).unwrap(), &["cannot read"]),
    ];
    for (name, damage, expected) in cases {
        let dir = tempfile::tempdir().unwrap();
        write_cacerts(dir.path(), &ca, &[&root]);
        load(dir.path(), OffsetDateTime::now_utc()).unwrap();
        damage(dir.path());
        let error = load(dir.path(), OffsetDateTime::now_utc()).unwrap_err().to_string();
        for part in expected {
            assert!(error.contains(part), "{name}: {part:?} not in {error}");
        }
        assert!(!error.contains("BEGIN"), "{name}: {error}");
    }
}

#[test]
fn a_leaf_certificate_is_no_authority() {
    let dir = tempfile::tempdir().unwrap();
    let root = mk_root("root");
    let key = PrivateKey::generate(Default::default()).unwrap();
    let authority = crate::ca::testing::mk_authority(&root, "ca", time::Duration::days(1));
    let issued =
        authority.issue(key.public_key_info(), &[San::Dns("a.b".into())], Duration::from_secs(60)).unwrap();
    let leaf = crate::ca::testing::Root { key, cert: Cert::from_der(issued.der).unwrap() };
    write_cacerts(dir.path(), &leaf, &[&root]);
    std::fs::write(dir.path().join(CERT_CHAIN), authority.signer().to_pem()).unwrap();
    let error = load(dir.path(), OffsetDateTime::now_utc()).unwrap_err().to_string();
    assert!(error.contains("may not sign certificates"), "{error}");
}

#[test]
fn a_certificate_never_outlives_the_chain_that_signs_it() {
    let authority = crate::ca::testing::mk_authority(&mk_root("root"), "ca", time::Duration::hours(2));
    let key = PrivateKey::generate(Default::default()).unwrap();
    let issued = authority.issue(key.public_key_info(), &[], Duration::from_secs(24 * 3600)).unwrap();
    assert_eq!(issued.not_after, authority.signer().not_after);
    let issued = authority.issue(key.public_key_info(), &[], Duration::MAX).unwrap();
    assert_eq!(issued.not_after, authority.signer().not_after);
}
