//! Which views a state belongs to.
//!
//! Why it exists: a view that a checkpoint knows nothing of would start empty in the middle of the
//! log and be wrong for ever. The state says which views it has, and whether it has the rows that
//! other views read; what it lacks is refused. Does not know what operators store.

use std::collections::BTreeSet;
use std::sync::Arc;

use falaj_definitions::plan::{Source, ViewPlan};
use falaj_event::{StateChange, ViewId};

use super::Resume;
use crate::error::EngineError;

/// The state entry that holds the census; sorts among those of logical partition 0.
const KEY: [u8; 2] = [0, b'C'];

/// A view, and whether others read it.
type Member = (ViewId, bool);

/// Checks that a state has all that `plans` need and returns the entry that the next checkpoint is to
/// write, if it is another than the state has.
pub(super) fn take(
    plans: &[Arc<ViewPlan>],
    resume: Option<&Resume>,
) -> Result<Option<StateChange>, EngineError> {
    let read = read_views(plans);
    let now: BTreeSet<Member> = plans.iter().map(|p| (p.id, read.contains(&p.id))).collect();
    let stored = match resume {
        Some(resume) => Some(stored(resume)?),
        None => None,
    };
    if let Some(stored) = &stored {
        let has = |id, read: bool| {
            stored.contains(&(id, true)) || (!read && stored.contains(&(id, false)))
        };
        if let Some(plan) = plans.iter().find(|p| !has(p.id, read.contains(&p.id))) {
            let why = format!(
                "the state has nothing of view `{}` (or of what others read of it)",
                plan.name
            );
            return Err(EngineError::state(&KEY, why));
        }
    }
    let change = || StateChange { key: KEY.to_vec(), value: Some(encode(&now)) };
    Ok((stored.as_ref() != Some(&now)).then(change))
}

/// Views that other views read.
pub(super) fn read_views(plans: &[Arc<ViewPlan>]) -> BTreeSet<ViewId> {
    let source = |plan: &Arc<ViewPlan>| match &plan.source {
        Source::View(view) => Some(view.id),
        Source::Topic(_) => None,
    };
    plans.iter().filter_map(source).collect()
}

/// Whether `key` is the census rather than an operator's.
pub(super) fn is_census(key: &[u8]) -> bool {
    key == KEY
}

fn encode(members: &BTreeSet<Member>) -> Vec<u8> {
    members.iter().flat_map(|(view, read)| view.0.into_iter().chain([u8::from(*read)])).collect()
}

fn stored(resume: &Resume) -> Result<BTreeSet<Member>, EngineError> {
    let bytes = resume.state.iter().find(|(key, _)| is_census(key)).map(|(_, bytes)| bytes);
    let bytes =
        bytes.ok_or_else(|| EngineError::state(&KEY, "the state does not name its views"))?;
    let (members, rest) = bytes.as_chunks::<9>();
    if !rest.is_empty() {
        return Err(EngineError::state(&KEY, "not a list of views"));
    }
    let member = |&[ref id @ .., read]: &[u8; 9]| (ViewId(*id), read == 1);
    Ok(members.iter().map(member).collect())
}
