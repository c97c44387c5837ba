//! What signing certificates needs at least, on one core: as `openssl speed` has it, with the library that this project uses.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use aws_lc_rs::{
    rand::SystemRandom,
    rsa::{KeyPair as RsaKeyPair, KeySize},
    signature::{
        ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256,
        UnparsedPublicKey,
    },
};
use serde::Serialize;

use super::cpu;

/// How fast one operation is.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rate {
    /// What is done.
    pub operation: &'static str,
    /// CPU time each, in microseconds.
    pub microseconds: f64,
    /// So many in a second of CPU time.
    pub per_second: f64,
}

/// About the size of what is signed in a certificate.
const SIGNED: [u8; 400] = [7; 400];

/// Measures every operation for so long.
pub fn measure(each: Duration) -> anyhow::Result<Vec<Rate>> {
    let random = SystemRandom::new();
    let failed = |_| anyhow!("the cryptographic library failed");
    let ecdsa = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
    let signature = ecdsa.sign(&random, &SIGNED).map_err(failed)?;
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, ecdsa.public_key().as_ref().to_vec());
    let rsa = RsaKeyPair::generate(KeySize::Rsa2048).map_err(failed)?;

    let verify = || public.verify(&SIGNED, signature.as_ref()).map_err(failed);
    let sign = || ecdsa.sign(&random, &SIGNED).map(|s| _ = black_box(s)).map_err(failed);
    let rsa_sign = || {
        let mut signature = [0; 256];
        let signed = rsa.sign(&RSA_PKCS1_SHA256, &random, &SIGNED, &mut signature).map_err(failed);
        signed.map(|()| _ = black_box(signature))
    };
    let keygen = || {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).map_err(failed)?;
        // A key is of use as PKCS#8 only.
        key.to_pkcs8v1().map(|der| _ = black_box(der.as_ref().len())).map_err(failed)
    };
    Ok(vec![
        rate("ecdsa-p256-verify", each, verify)?,
        rate("ecdsa-p256-sign", each, sign)?,
        rate("ecdsa-p256-verify-and-sign", each, || verify().and_then(|()| sign()))?,
        rate("ecdsa-p256-keygen", each, keygen)?,
        rate("ecdsa-p256-keygen-and-sign", each, || keygen().and_then(|()| sign()))?,
        rate("rsa-2048-sign", each, rsa_sign)?,
        rate("ecdsa-p256-verify-and-rsa-2048-sign", each, || verify().and_then(|()| rsa_sign()))?,
    ])
}

fn rate(
    operation: &'static str,
    each: Duration,
    mut run: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Rate> {
    run()?;
    let (began, cpu) = (Instant::now(), cpu::of_this_thread());
    let mut times = 0u32;
    while began.elapsed() < each {
        run()?;
        times += 1;
    }
    let used = cpu::of_this_thread().saturating_sub(cpu);
    // Without the kernel's count, the clock has to do.
    let used = if used.is_zero() { began.elapsed() } else { used };
    let seconds = used.as_secs_f64() / f64::from(times.max(1));
    Ok(Rate { operation, microseconds: seconds * 1e6, per_second: 1.0 / seconds })
}
