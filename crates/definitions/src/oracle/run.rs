//! Runs an oracle's SQL with DataFusion over exported events in memory.
//!
//! Does not know where the events come from.

use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use datafusion::datasource::MemTable;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::{OracleError, table_name};

/// Runs `sql` over `tables` (topic name, exported events) and returns the result's batches. Needs a
/// tokio runtime.
///
/// # Errors
/// When DataFusion refuses the SQL or fails on a row.
pub async fn run(
    sql: &str,
    tables: &[(&str, RecordBatch)],
) -> Result<Vec<RecordBatch>, OracleError> {
    let failed =
        |error: datafusion::error::DataFusionError| OracleError::Engine(error.strip_backtrace());
    let mut config = SessionConfig::new().with_target_partitions(1);
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let context = SessionContext::new_with_config(config);
    for (topic, batch) in tables {
        let table = MemTable::try_new(batch.schema(), vec![vec![batch.clone()]]).map_err(failed)?;
        context.register_table(table_name(topic).as_str(), Arc::new(table)).map_err(failed)?;
    }
    context.sql(sql).await.map_err(failed)?.collect().await.map_err(failed)
}
