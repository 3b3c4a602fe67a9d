//! Wires plans into one dataflow: sources, shared tables, joins, views, probes.
//!
//! Does not know how any of the operators works. Every worker builds the same operators in the same
//! order.

use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;

use falaj_definitions::plan::{JoinKind, Shape, Source, ViewPlan};
use falaj_event::{TopicId, TopicKind, TopicSchema, ViewId};
use timely::dataflow::Scope;
use timely::dataflow::operators::core::input::Input as _;
use timely::dataflow::operators::probe::{Handle as Probe, Probe as _};
use timely::worker::Worker;

use super::Resume;
use super::census::{is_census, read_views};
use crate::context::Context;
use crate::delay::{Held, Keep, delay_until};
use crate::error::EngineError;
use crate::join::{AsOf, ByKey, arrange_table, asof_join, left_join};
use crate::row::Rows;
use crate::source::{Sources, Tap};
use crate::state::{Restored, Space};
use crate::table::{RowStore, current_rows};
use crate::view::{Parts, Preparer, keyed_view, per_row_view, prepare_rows};

/// Builds the dataflow of `plans` on this worker.
pub(super) fn build(
    worker: &mut Worker,
    plans: &[Arc<ViewPlan>],
    resume: Option<&Resume>,
    context: &Rc<Context>,
    probe: &Probe<u64>,
) -> Result<Sources, EngineError> {
    let (index, peers) = (worker.index(), worker.peers());
    let entries = resume.into_iter().flat_map(|resume| &resume.state);
    let restored = Restored::share(entries.filter(|(key, _)| !is_census(key)), index, peers)?;
    worker.dataflow_named::<u64, _, _>("falaj views", |scope| {
        let mut builder = Builder {
            scope,
            context,
            restored,
            sources: Sources::new(index, peers),
            tables: BTreeMap::new(),
            views: BTreeMap::new(),
            read: read_views(plans),
        };
        for plan in plans {
            let rows = builder.view(plan)?;
            let rows = rows.probe_with(probe);
            builder.views.insert(plan.id, rows);
        }
        Ok(builder.sources)
    })
}

struct Builder<'scope, 'a> {
    scope: Scope<'scope, u64>,
    context: &'a Rc<Context>,
    restored: Restored,
    sources: Sources,
    tables: BTreeMap<TopicId, Table<'scope>>,
    views: BTreeMap<ViewId, Rows<'scope>>,
    read: BTreeSet<ViewId>,
}

/// The streams of one table topic, made when first asked for.
struct Table<'scope> {
    events: Rows<'scope>,
    current: Option<Rows<'scope>>,
    by_key: Option<ByKey<'scope>>,
}

impl<'scope> Builder<'scope, '_> {
    fn input(&mut self, topic: &TopicSchema, tap: Tap) -> Rows<'scope> {
        let (input, rows) = self.scope.new_input();
        self.sources.add(topic.id(), tap, input);
        rows
    }

    fn table_events(&mut self, topic: &TopicSchema) -> Rows<'scope> {
        if let Some(table) = self.tables.get(&topic.id()) {
            return table.events.clone();
        }
        let events = self.input(topic, Tap::Table);
        let table = Table { events: events.clone(), current: None, by_key: None };
        self.tables.insert(topic.id(), table);
        events
    }

    fn table_rows(&mut self, topic: &TopicSchema) -> Result<Rows<'scope>, EngineError> {
        let events = self.table_events(topic);
        if let Some(rows) = self.tables.get(&topic.id()).and_then(|table| table.current.clone()) {
            return Ok(rows);
        }
        let space = Space::table(topic.id());
        let store = RowStore::restore(space, topic.columns.len(), &mut self.restored)?;
        let rows = current_rows(events, &format!("{} table", topic.name), store, self.context);
        if let Some(table) = self.tables.get_mut(&topic.id()) {
            table.current = Some(rows.clone());
        }
        Ok(rows)
    }

    fn table_by_key(&mut self, topic: &TopicSchema) -> Result<ByKey<'scope>, EngineError> {
        let rows = self.table_rows(topic)?;
        if let Some(by_key) = self.tables.get(&topic.id()).and_then(|table| table.by_key.clone()) {
            return Ok(by_key);
        }
        let by_key = arrange_table(rows, &format!("{} by key", topic.name));
        if let Some(table) = self.tables.get_mut(&topic.id()) {
            table.by_key = Some(by_key.clone());
        }
        Ok(by_key)
    }

    fn view(&mut self, plan: &Arc<ViewPlan>) -> Result<Rows<'scope>, EngineError> {
        let keyed = matches!(plan.shape, Shape::Keyed { .. });
        if let (Source::Topic(topic), true, true) = (&plan.source, plan.joins.is_empty(), keyed)
            && topic.kind == TopicKind::Event
        {
            let held = Held::restore(
                Space::held(plan.id),
                Keep::Waiting,
                &mut self.restored,
                self.context,
            )?;
            let tap = Tap::Prepared(Box::new(Preparer::new(plan)?));
            let rows = self.input(topic, tap);
            return keyed_view(rows, self.parts(plan), Some(held));
        }
        let rows = self.source(plan)?;
        let rows = self.joins(plan, rows)?;
        let rows = prepare_rows(rows, Preparer::new(plan)?, self.context);
        match keyed {
            true => keyed_view(rows, self.parts(plan), None),
            false => per_row_view(rows, self.parts(plan)),
        }
    }

    fn parts<'b>(&'b mut self, plan: &'b Arc<ViewPlan>) -> Parts<'b> {
        let is_read = self.read.contains(&plan.id);
        Parts { plan, is_read, restored: &mut self.restored, context: self.context }
    }

    /// The changing rows that a view's joins begin with.
    fn source(&mut self, plan: &ViewPlan) -> Result<Rows<'scope>, EngineError> {
        let name = format!("{} delay", plan.name);
        match &plan.source {
            Source::View(view) => self.views.get(&view.id).cloned().ok_or_else(|| {
                let why = format!("`{}` must come before it", view.name);
                EngineError::Plan { view: plan.name.clone(), why }
            }),
            Source::Topic(topic) if topic.kind == TopicKind::Table => {
                let rows = self.table_rows(topic)?;
                let held = Held::unstored(Keep::Waiting, self.context);
                Ok(delay_until(rows, &name, held, self.context))
            }
            Source::Topic(topic) => {
                let keep = Keep::Live(plan.horizon_us);
                let space = Space::held(plan.id);
                let held = Held::restore(space, keep, &mut self.restored, self.context)?;
                let rows = self.input(topic, Tap::Columns(read_columns(plan, topic)));
                Ok(delay_until(rows, &name, held, self.context))
            }
        }
    }

    fn joins(
        &mut self,
        plan: &ViewPlan,
        mut rows: Rows<'scope>,
    ) -> Result<Rows<'scope>, EngineError> {
        for (index, join) in plan.joins.iter().enumerate() {
            let name = format!("{} join {}", plan.name, join.table.name);
            rows = match join.kind {
                JoinKind::Left => {
                    let table = self.table_by_key(&join.table)?;
                    left_join(rows, table, join, &name, self.context)?
                }
                JoinKind::AsOf => {
                    let versions = self.table_events(&join.table);
                    let why = || EngineError::Plan {
                        view: plan.name.clone(),
                        why: "more than 256 joins".to_owned(),
                    };
                    let index = u8::try_from(index).map_err(|_| why())?;
                    let operator = AsOf::restore(
                        Space::versions(plan.id, index),
                        join.table.columns.len(),
                        plan.horizon_us,
                        &mut self.restored,
                    )?;
                    asof_join(rows, versions, join, &name, operator, self.context)?
                }
            };
        }
        Ok(rows)
    }
}

/// Which columns of its source a view's programs read.
fn read_columns(plan: &ViewPlan, topic: &TopicSchema) -> Vec<bool> {
    let programs = plan.joins.iter().map(|join| &join.left_key).chain([&plan.prepare]);
    let mut read = vec![false; topic.columns.len()];
    for program in programs {
        let outputs = 0..program.output_types().len();
        for column in outputs.flat_map(|output| program.reads(output)) {
            if let Some(read) = read.get_mut(*column) {
                *read = true;
            }
        }
    }
    read
}
