use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::plan::{Due, Plan, Unproven, judge};
use crate::{
    registry::{convert::watched::Status, kubernetes::Failure},
    writers::metrics::Outcome,
};

const NAME: &str = "istio-validator-istio-system";

fn configuration(version: u64, bundle: &str, policy: &str) -> Value {
    json!({
        "metadata": { "name": NAME, "resourceVersion": version.to_string(), "labels": { "istio.io/rev": "default" } },
        "webhooks": [
            { "name": "a.validation.istio.io", "failurePolicy": policy,
              "clientConfig": { "service": { "name": "istiod" }, "caBundle": bundle } },
            { "name": "b.validation.istio.io", "failurePolicy": "Fail", "clientConfig": { "caBundle": bundle } },
        ],
    })
}

fn failure(code: u16, message: &str) -> Failure {
    Failure::of_status(&Status { code, message: message.into(), ..Status::default() })
}

fn plan(configurations: Vec<Value>) -> Plan {
    let mut plan = Plan::default();
    plan.set_bundle(Some("ours".to_owned()));
    plan.all(configurations);
    plan
}

/// Does what is due; what was written, and how.
#[track_caller]
fn write(plan: &mut Plan, version: u64, now: Instant) -> (Value, Outcome) {
    let due = plan.due(now);
    done(plan, due, version, now)
}

#[track_caller]
fn done(plan: &mut Plan, due: Option<Due>, version: u64, now: Instant) -> (Value, Outcome) {
    match due {
        Some(Due::Write { name, mut configuration, outcome }) => {
            assert_eq!(name, NAME);
            let sent = configuration.clone();
            configuration["metadata"]["resourceVersion"] = json!(version.to_string());
            plan.written(&name, Ok(configuration), now);
            (sent, outcome)
        }
        other => panic!("{other:?}"),
    }
}

fn bundles_and_policies(configuration: &Value) -> Vec<(&str, &str)> {
    let all = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    all.iter()
        .map(|w| {
            (
                w["clientConfig"]["caBundle"].as_str().unwrap_or_default(),
                w["failurePolicy"].as_str().unwrap_or_default(),
            )
        })
        .collect()
}

#[test]
fn nothing_is_due_before_all_is_known() {
    let now = Instant::now();
    let mut plan = Plan::default();
    assert_eq!(plan.due(now), None);
    plan.set_bundle(Some("ours".to_owned()));
    plan.now(configuration(1, "", "Ignore"));
    assert_eq!(plan.due(now), None);
    let mut plan = Plan::default();
    plan.all(vec![configuration(1, "", "Ignore"), json!(7), json!(null)]);
    assert_eq!(plan.due(now), None);
}

#[test]
fn roots_come_first_and_strictness_only_with_a_proof() {
    let now = Instant::now();
    let mut plan = plan(vec![configuration(1, "", "Ignore")]);
    let (sent, outcome) = write(&mut plan, 2, now);
    assert_eq!(bundles_and_policies(&sent), [("ours", "Ignore"), ("ours", "Fail")]);
    assert_eq!(outcome, Outcome::Written);
    // Everything else stays, and so does the version that it was made from.
    assert_eq!(sent["webhooks"][0]["clientConfig"]["service"]["name"], "istiod");
    assert_eq!(
        (&sent["metadata"]["resourceVersion"], &sent["kind"]),
        (&json!("1"), &json!("ValidatingWebhookConfiguration"))
    );

    assert_eq!(plan.due(now), Some(Due::Prove));
    plan.proven(Err(Unproven::Taken), now);
    assert_eq!(plan.due(now), None);
    let later = plan.next(now).expect("it is tried again");
    assert!(later <= now + Duration::from_millis(100));
    assert_eq!(plan.due(later), Some(Due::Prove));
    assert!(plan.unproven().is_none(), "a rollout takes its time");
    for _ in 0..10 {
        plan.proven(Err(Unproven::Taken), now);
    }
    assert_eq!(plan.unproven(), Some((&Unproven::Taken, vec![NAME])));
    assert!(plan.next(now).expect("again") <= now + Duration::from_secs(60));

    plan.proven(Ok(()), now);
    let (sent, outcome) = write(&mut plan, 3, now);
    assert_eq!(bundles_and_policies(&sent), [("ours", "Fail"), ("ours", "Fail")]);
    assert_eq!((outcome, plan.due(now), plan.next(now)), (Outcome::Written, None, None));
    assert!(plan.unproven().is_none());
    // What comes back late is no news.
    plan.now(configuration(2, "ours", "Ignore"));
    assert_eq!(plan.due(now), None);
}

#[test]
fn what_is_changed_is_put_right_and_a_fight_becomes_rare() {
    let mut now = Instant::now();
    let mut plan = plan(vec![configuration(1, "ours", "Fail")]);
    assert_eq!(plan.due(now), None);
    // New roots.
    plan.set_bundle(Some("new".to_owned()));
    let (sent, outcome) = write(&mut plan, 2, now);
    assert_eq!((bundles_and_policies(&sent)[0], outcome), (("new", "Fail"), Outcome::Written));
    let mut waited = Duration::ZERO;
    for round in 0..20 {
        plan.now(configuration(10 + 2 * round, "", "Fail"));
        let mut due = plan.due(now);
        if due.is_none() {
            let at = plan.next(now).expect("it is repaired some time");
            waited = at - now;
            now = at;
            due = plan.due(now);
        }
        let (sent, outcome) = done(&mut plan, due, 11 + 2 * round, now);
        assert_eq!((bundles_and_policies(&sent)[0], outcome), (("new", "Fail"), Outcome::Repaired));
        assert_eq!(plan.fights(now).count(), usize::from(round >= 3), "{round}");
    }
    assert!(waited >= Duration::from_secs(200), "{waited:?}");
    let peace = now + Duration::from_secs(700);
    assert_eq!(plan.fights(peace).count(), 0);
    // One that is made lenient is proven again, and strict again.
    plan.now(configuration(100, "new", "Ignore"));
    assert_eq!(plan.due(peace), Some(Due::Prove));
    plan.proven(Ok(()), peace);
    assert_eq!(write(&mut plan, 101, peace).1, Outcome::Repaired);
}

#[test]
fn failures_are_tried_again_and_named_until_they_are_over() {
    let now = Instant::now();
    let mut plan = plan(vec![configuration(1, "", "Fail")]);
    let Some(Due::Write { name, .. }) = plan.due(now) else { panic!("it is due") };
    plan.written(&name, Err(failure(409, "somebody was faster")), now);
    assert_eq!((plan.due(now), plan.failures().count()), (None, 0));
    let later = plan.next(now).expect("again");
    let Some(Due::Write { name, .. }) = plan.due(later) else { panic!("it is due") };
    plan.written(&name, Err(failure(403, "no")), later);
    assert_eq!(plan.failures().map(|(name, _)| name).collect::<Vec<_>>(), [NAME]);
    let later = plan.next(later).expect("again");
    write(&mut plan, 2, later);
    assert_eq!((plan.failures().count(), plan.due(later)), (0, None));
    plan.gone(&configuration(3, "", ""));
    assert_eq!((plan.due(later), plan.next(later)), (None, None));
}

#[test]
fn only_our_own_refusal_is_a_proof() {
    let ours = "admission webhook \"a.validation.istio.io\" denied the request: configuration is invalid: \
        metadata.annotations[internal.istio.io/webhook-always-reject]: is for the control plane itself";
    assert_eq!(judge(Some(failure(422, ours))), Ok(()));
    assert_eq!(judge(None), Err(Unproven::Taken));
    for (code, said) in [
        (403, "admission webhook \"policy.example.com\" denied the request: no Gateways here"),
        (403, "gateways is forbidden: User cannot create resource"),
        (404, "the server could not find the requested resource"),
        (400, "admission webhook \"x\" does not support dry run"),
        (500, "failed calling webhook \"a.validation.istio.io\": connection refused"),
    ] {
        assert!(matches!(judge(Some(failure(code, said))), Err(Unproven::Failed(_))), "{said}");
    }
}
