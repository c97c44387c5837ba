//! What the resources of a response lead to.

use super::world::{ContentId, IdMap, NameId, World};
use crate::expect::Type;

/// What the resources of a response lead to.
#[derive(Debug, Default)]
pub struct Follow {
    /// Names that are needed now.
    pub gained: Vec<NameId>,
    /// Names that one resource less needs.
    pub lost: Vec<NameId>,
    /// Collections that come from elsewhere now: what is here of them is dropped, and they are asked for again.
    pub again: Vec<NameId>,
    /// A route configuration came whose virtual hosts come one by one.
    pub virtual_hosts: bool,
    /// A cluster changed whose endpoints are here (state of the world: they are asked for again).
    pub rewarm: bool,
}

impl Follow {
    /// A resource has become another one, has come or is gone.
    pub fn change(&mut self, world: &World, old: Option<ContentId>, new: Option<ContentId>) {
        let needs = |content| -> &[NameId] { Option::map_or(content, &[], |id| &world.of_content(id).needs) };
        let (before, after) = (needs(old), needs(new));
        if before != after {
            self.lost.extend(before.iter().filter(|name| !after.contains(name)));
            self.gained.extend(after.iter().filter(|name| !before.contains(name)));
        }
        if let (Some(old), Some(new)) = (old, new)
            && world.of_content(old).source != world.of_content(new).source
        {
            self.again.extend(before.iter().filter(|name| after.contains(name)));
        }
        self.virtual_hosts |= new.is_some_and(|new| world.of_content(new).virtual_hosts);
    }
}

/// The endpoints of a changed cluster are waited for again.
pub fn rewarm(warming: &mut IdMap<NameId, ()>, world: &World, content: ContentId) -> bool {
    let needs = &world.of_content(content).needs;
    let endpoints = needs.iter().filter(|name| world.of_name(**name).kind == Type::Endpoint);
    endpoints.map(|name| warming.insert(*name, ())).count() > 0
}
