//! Programs from planned expressions: the prepared row under construction, and the step from
//! logical to checked physical expressions.
//!
//! Does not know SQL.

use std::sync::Arc;

use arrow::array::new_null_array;
use arrow::datatypes::{Field, Schema, SchemaRef};
use arrow::record_batch::RecordBatch;
use datafusion::common::tree_node::{Transformed, TreeNode};
use datafusion::common::{Column, DFSchema};
use datafusion::execution::context::ExecutionProps;
use datafusion::logical_expr::Expr;
use datafusion::logical_expr::physical_planning_context::PhysicalPlanningContext;
use datafusion::physical_expr::expressions::{BinaryExpr, CastExpr};
use datafusion::physical_expr::{PhysicalExpr, create_physical_expr};
use datafusion::sql::sqlparser::tokenizer::Span;
use falaj_event::ColumnType;

use super::refusal::{Checked, mistyped};
use super::scalar::Typed;
use super::types::carrier;
use crate::program::Program;

/// The columns of a program under construction; equal expressions share a column.
#[derive(Clone, Debug, Default)]
pub(crate) struct Columns {
    pub items: Vec<ProgramColumn>,
}

/// One column of a program.
#[derive(Clone, Debug)]
pub(crate) struct ProgramColumn {
    pub expr: Expr,
    pub column_type: ColumnType,
    pub nullable: bool,
    pub span: Span,
}

impl Columns {
    /// The index of `typed`'s column, added when it is new.
    pub fn add(&mut self, typed: Typed) -> Checked<usize> {
        let column = column(typed)?;
        if let Some(index) = self.items.iter().position(|item| item.expr == column.expr) {
            return Ok(index);
        }
        self.items.push(column);
        Ok(self.items.len() - 1)
    }

    /// The program that computes them.
    pub fn program(&self, input: &SchemaRef) -> Checked<Program> {
        compile(&self.items, input)
    }

    /// The computed row, its columns named `prefix` and their index.
    pub fn schema(&self, prefix: &str) -> SchemaRef {
        let fields = self.items.iter().enumerate().map(|(index, item)| {
            Field::new(format!("{prefix}{index}"), item.column_type.to_arrow(), item.nullable)
        });
        Arc::new(Schema::new(fields.collect::<Vec<_>>()))
    }
}

/// Gives an expression the column type that carries its values.
pub(crate) fn column(typed: Typed) -> Checked<ProgramColumn> {
    let Some(column_type) = carrier(&typed.data_type) else {
        let refusal = mistyped(typed.span, format!("no column can hold {}", typed.data_type));
        return Err(match typed.data_type {
            arrow::datatypes::DataType::Null => {
                refusal.help("give NULL a type: CAST(NULL AS BIGINT)")
            }
            arrow::datatypes::DataType::Duration(_) | arrow::datatypes::DataType::Interval(_) => {
                refusal.help("write EXTRACT(EPOCH FROM …) for seconds")
            }
            _ => refusal.help("CAST it to a column type"),
        });
    };
    Ok(ProgramColumn { expr: typed.expr, column_type, nullable: typed.nullable, span: typed.span })
}

/// Compiles expressions over the rows of `input`.
pub(crate) fn compile(items: &[ProgramColumn], input: &SchemaRef) -> Checked<Program> {
    let names = DFSchema::try_from(Arc::clone(input))
        .map_err(|error| mistyped(Span::empty(), error.strip_backtrace()))?;
    let probe = nulls(input);
    let compiled = items.iter().map(|item| {
        let refuse = |error: datafusion::error::DataFusionError| {
            mistyped(item.span, error.strip_backtrace())
        };
        let physical = physical(&item.expr, &names, input, &item.column_type).map_err(refuse)?;
        // What fails on a row of NULLs fails on every row: a constant without an answer.
        if let Some(probe) = &probe {
            physical.evaluate(probe).map_err(refuse)?;
        }
        Ok((physical, item.column_type.clone()))
    });
    Ok(Program::compile(Arc::clone(input), compiled.collect::<Checked<Vec<_>>>()?))
}

/// One row of NULLs.
fn nulls(input: &Schema) -> Option<RecordBatch> {
    let fields = input.fields().iter().map(|field| field.as_ref().clone().with_nullable(true));
    let schema = Schema::new(fields.collect::<Vec<_>>());
    let columns =
        schema.fields().iter().map(|field| new_null_array(field.data_type(), 1)).collect();
    RecordBatch::try_new(Arc::new(schema), columns).ok()
}

fn physical(
    expr: &Expr,
    names: &DFSchema,
    input: &Schema,
    column_type: &ColumnType,
) -> datafusion::error::Result<Arc<dyn PhysicalExpr>> {
    let planned = create_physical_expr(
        expr,
        names,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )?;
    let checked = planned
        .transform_up(|node| {
            let Some(binary) = node.downcast_ref::<BinaryExpr>() else {
                return Ok(Transformed::no(node));
            };
            let checked = BinaryExpr::new(
                Arc::clone(binary.left()),
                *binary.op(),
                Arc::clone(binary.right()),
            );
            Ok(Transformed::yes(
                Arc::new(checked.with_fail_on_overflow(true)) as Arc<dyn PhysicalExpr>
            ))
        })?
        .data;
    let carrier = column_type.to_arrow();
    if checked.data_type(input)? == carrier {
        return Ok(checked);
    }
    Ok(Arc::new(CastExpr::new(checked, carrier, None)))
}

/// A column of a row by its internal name.
pub(crate) fn named(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
