//! Objects that were read elsewhere, made to share their text with those of a decoder: of the kinds that come by the
//! hundred thousand.

use std::sync::Arc;

use super::strings::Strings;
use crate::model::{
    Object, ObjectKey,
    kubernetes::{EndpointSlice, Pod},
};

/// Exchanges what many objects say for the strings that are kept already.
pub fn adopt(key: &mut ObjectKey, object: &mut Object, strings: &mut Strings) {
    key.namespace = strings.get(&key.namespace);
    match object {
        // One that somebody else has already is left as it is.
        Object::Pod(pod) => Arc::get_mut(pod).into_iter().for_each(|pod| share_pod(key, pod, strings)),
        Object::EndpointSlice(slice) => {
            Arc::get_mut(slice).into_iter().for_each(|slice| share_slice(key, slice, strings));
        }
        _ => {}
    }
}

fn share_pod(key: &ObjectKey, pod: &mut Pod, strings: &mut Strings) {
    let Pod { meta, ips: _, service_account, node, named_ports, workload, finished: _ } = pod;
    (meta.namespace, meta.name) = (key.namespace.clone(), key.name.clone());
    let labels = std::mem::take(&mut meta.labels);
    meta.labels = labels.iter().map(|(name, value)| (strings.get(name), strings.get(value))).collect();
    let names = named_ports.iter_mut().map(|(name, _)| name);
    for text in names.chain(node).chain([service_account, workload]) {
        *text = strings.get(text);
    }
}

fn share_slice(key: &ObjectKey, slice: &mut EndpointSlice, strings: &mut Strings) {
    let EndpointSlice { namespace, name, service, ports, endpoints } = slice;
    (*namespace, *name) = (key.namespace.clone(), key.name.clone());
    for text in ports.iter_mut().map(|port| &mut port.name).chain([service]) {
        *text = strings.get(text);
    }
    endpoints.share_nodes(|node| strings.get(node));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ClusterId, Kind, kubernetes::SliceEndpoint};

    #[test]
    fn shares_what_is_kept() {
        let mut strings = Strings::default();
        let node = strings.get("node-1");
        let slice = EndpointSlice {
            endpoints: [SliceEndpoint { node: Some("node-1".into()), ..SliceEndpoint::at([10, 0, 0, 1]) }]
                .into_iter()
                .collect(),
            ..EndpointSlice::default()
        };
        let mut key = ObjectKey {
            cluster: ClusterId::from("east"),
            kind: Kind::EndpointSlice,
            namespace: "production".into(),
            name: "backend-1".into(),
        };
        let mut object = Object::EndpointSlice(Arc::new(slice));
        adopt(&mut key, &mut object, &mut strings);
        let mut pod = Object::Pod(Arc::new(Pod { node: Some("node-1".into()), ..Pod::default() }));
        adopt(&mut key, &mut pod, &mut strings);
        let (Object::EndpointSlice(slice), Object::Pod(pod)) = (object, pod) else { unreachable!() };
        for shared in [slice.endpoints.node(0), pod.node.as_ref()] {
            assert!(shared.is_some_and(|shared| Arc::ptr_eq(shared, &node)));
        }
        assert!(Arc::ptr_eq(&slice.namespace, &key.namespace) && Arc::ptr_eq(&pod.meta.name, &key.name));
    }
}
