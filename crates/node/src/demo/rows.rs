//! From what the simulation says to rows of the payments topics.
//!
//! Knows the columns of `topics/payments/*.toml` by name; knows no log and no client.

use anyhow::{Result, bail};
use arrow::datatypes::Schema;
use arrow::record_batch::RecordBatch;
use falaj_event::value::to_array;
use falaj_event::{ColumnType, Op, Value};
use std::sync::Arc;

use super::simulation::{Customer, Flaw, Happening, Merchant, Payment};

/// Names of the topics that the simulation writes, tables first.
pub const TOPICS: [&str; 4] = ["merchants", "customers", "payments", "payment_outcomes"];

/// Index in [`TOPICS`] of the payments.
pub const PAYMENTS: usize = 2;

/// Index in [`TOPICS`] of the topic that a happening belongs to.
pub fn topic_of(happening: &Happening) -> usize {
    match happening {
        Happening::Merchant(_) => 0,
        Happening::Customer(_) | Happening::CustomerGone(_) => 1,
        Happening::Payment(_) => PAYMENTS,
        Happening::Settled(_) => 3,
    }
}

/// The operation of a happening.
pub fn op_of(happening: &Happening) -> Op {
    match happening {
        Happening::Payment(_) | Happening::Settled(_) => Op::Insert,
        Happening::CustomerGone(_) => Op::Delete,
        Happening::Customer(_) | Happening::Merchant(_) => Op::Upsert,
    }
}

/// Customer ids as the topics write them.
pub fn customer_id(index: u32) -> String {
    format!("CUS-{index:06}")
}

/// Merchant ids as the topics write them.
pub fn merchant_id(index: u32) -> String {
    format!("MER-{index:05}")
}

/// A batch of one topic's happenings under the topic's schema, every field nullable.
///
/// # Errors
/// When the topic has a column that the simulation does not know.
pub fn batch(schema: &Schema, happenings: &[&Happening]) -> Result<RecordBatch> {
    let mut arrays = Vec::with_capacity(schema.fields().len());
    let mut fields = Vec::with_capacity(schema.fields().len());
    for field in schema.fields() {
        let Some(column_type) = ColumnType::from_arrow(field.data_type()) else {
            bail!("column {} has no column type", field.name());
        };
        let values = happenings
            .iter()
            .map(|happening| value(field.name(), happening))
            .collect::<Result<Vec<_>>>()?;
        arrays.push(to_array(&column_type, &values)?);
        fields.push(field.as_ref().clone().with_nullable(true));
    }
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

fn value(column: &str, happening: &Happening) -> Result<Value> {
    let found = match happening {
        Happening::Customer(customer) => customer_value(column, customer),
        Happening::CustomerGone(customer) => match column {
            "customer_id" | "changed_at" => customer_value(column, customer),
            _ => Some(Value::Null),
        },
        Happening::Merchant(merchant) => merchant_value(column, merchant),
        Happening::Payment(payment) => payment_value(column, payment),
        Happening::Settled(outcome) => match column {
            "settled_at" => Some(Value::Timestamp(outcome.settled_at)),
            "fraud" => Some(Value::Bool(outcome.fraud)),
            // The till asks for predictions by the payment's id.
            "prediction_id" => payment_value("payment_id", &outcome.payment),
            _ => payment_value(column, &outcome.payment),
        },
    };
    match found {
        Some(value) => Ok(value),
        None => bail!("the simulation does not know a column `{column}`"),
    }
}

fn text(text: impl Into<Arc<str>>) -> Value {
    Value::String(text.into())
}

fn customer_value(column: &str, customer: &Customer) -> Option<Value> {
    Some(match column {
        "customer_id" => text(customer_id(customer.index)),
        "changed_at" => Value::Timestamp(customer.event_time),
        "segment" => text(customer.segment),
        "city" => text(customer.city),
        "country" => text("AE"),
        "joined_on" => Value::Date(customer.joined_days),
        "credit_limit" => Value::Decimal(customer.limit_fils.into(), 2),
        "full_name" => text(customer.name.as_str()),
        "phone" => text(customer.phone.as_str()),
        _ => return None,
    })
}

fn merchant_value(column: &str, merchant: &Merchant) -> Option<Value> {
    Some(match column {
        "merchant_id" => text(merchant_id(merchant.index)),
        "changed_at" => Value::Timestamp(merchant.event_time),
        "category_code" => text(merchant.category),
        "city" => text(merchant.city),
        "risk_tier" => text(merchant.risk_tier),
        _ => return None,
    })
}

fn payment_value(column: &str, payment: &Payment) -> Option<Value> {
    Some(match column {
        "payment_id" => text(format!("PAY-{:010}", payment.number)),
        "paid_at" => Value::Timestamp(payment.event_time),
        "customer_id" if payment.flaw == Some(Flaw::MissingCustomer) => Value::Null,
        "customer_id" => text(customer_id(payment.customer)),
        "merchant_id" => text(merchant_id(payment.merchant)),
        "amount_fils" => Value::Int(payment.amount_fils),
        "currency" => text(payment.currency),
        "channel" => text(payment.channel),
        "card_present" => Value::Bool(payment.channel != "online"),
        "country" => text(payment.country),
        "device_risk" => Value::Float64(payment.device_risk),
        "status" => text(payment.status),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::simulation::{Simulation, SimulationOptions};
    use arrow::datatypes::{DataType, Field};

    #[test]
    fn every_happening_has_a_row() {
        let options = SimulationOptions {
            payments: 3_000,
            customers: 50,
            merchants: 20,
            ..Default::default()
        };
        let happenings = Simulation::new(options).happenings();
        let payments: Vec<&Happening> = happenings.iter().filter(|h| topic_of(h) == 2).collect();
        let schema = Schema::new(vec![
            Field::new("payment_id", DataType::Utf8, false),
            Field::new("customer_id", DataType::Utf8, false),
            Field::new("amount_fils", DataType::Int64, false),
        ]);
        let rows = batch(&schema, &payments).unwrap();
        assert_eq!(rows.num_rows(), 3_000);
        let missing = payments.iter().filter(
            |h| matches!(h, Happening::Payment(p) if p.flaw == Some(Flaw::MissingCustomer)),
        );
        assert_eq!(rows.column(1).null_count(), missing.count());
        let unknown = Schema::new(vec![Field::new("shoe_size", DataType::Int64, false)]);
        assert!(batch(&unknown, &payments).unwrap_err().to_string().contains("shoe_size"));
    }
}
