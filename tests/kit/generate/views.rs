//! Views at random: windows, hops, frames, aggregates, filters, joins, groups, views over views.
//!
//! Writes SQL that `falaj check` accepts and any SQL engine can evaluate. Does not know events.

use crate::random::Random;

/// What a view may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taste {
    /// Whether order-dependent aggregates and bare columns may be keyed by another column than the
    /// topic's key.
    pub any_key_order: bool,
}

/// Views over the generated topics: (name, SQL), each after those that it reads.
pub fn draw(seed: u64, taste: Taste) -> Vec<(String, String)> {
    let random = Random::new(seed ^ 0xD1CE);
    let mut draw = Draw { random, taste, ordered: true, below_keys: &[] };
    let below = draw.windowed("below");
    let groups = draw.grouped("groups");
    let mut views = vec![below, groups];
    views.push(match draw.random.below(3) {
        0 => draw.over_table("tabled"),
        _ => draw.windowed("windowed"),
    });
    views.push(match draw.random.below(2) {
        0 => draw.rows_over_view("above"),
        _ => draw.groups_over_view("above"),
    });
    views
}

struct Draw {
    random: Random,
    taste: Taste,
    /// Whether order-dependent aggregates are allowed where the draw stands.
    ordered: bool,
    /// The key of the view that others read.
    below_keys: &'static [&'static str],
}

/// Which columns are in reach.
#[derive(Clone, Copy, Debug, Default)]
struct Reach {
    shops: bool,
    accounts: bool,
}

const LENGTHS: [&str; 9] = [
    "1 second",
    "7 seconds",
    "30 seconds",
    "1 minute",
    "90 seconds",
    "5 minutes",
    "10 minutes",
    "1 hour",
    "2 hours 30 minutes",
];
const HOPS: [&str; 6] =
    ["10 seconds", "7 seconds", "1 minute", "1 hour", "chronon", "1500 milliseconds"];

impl Draw {
    fn pick(&mut self, choices: &[&str]) -> String {
        (*self.random.pick(choices)).to_owned()
    }

    fn number(&mut self, reach: Reach) -> String {
        let mut choices = vec![
            "s.amount",
            "s.amount",
            "s.units",
            "s.price",
            "s.score",
            "s.score",
            "s.ratio",
            "s.amount + s.units",
            "s.amount * 3 - 7",
            "s.price - 1.25",
            "abs(s.price)",
            "s.score * 2.5",
            "-s.score",
            "CAST(s.amount AS DOUBLE) / nullif(s.units, 0)",
            "CASE WHEN s.paid THEN s.amount END",
            "CASE WHEN s.paid THEN s.score ELSE 0.0 END",
            "coalesce(s.units, 0)",
            "CAST(s.units AS DOUBLE) * 0.1",
        ];
        if reach.shops {
            choices.extend([
                "h.ceiling",
                "h.weight",
                "s.amount - h.ceiling",
                "coalesce(h.weight, s.score)",
            ]);
        }
        if reach.accounts {
            choices.extend(["a.allowance", "s.price - a.allowance"]);
        }
        self.pick(&choices)
    }

    /// Anything that has an order.
    fn ordered_value(&mut self, reach: Reach) -> String {
        if self.random.chance(50) {
            return self.number(reach);
        }
        let mut choices = vec!["s.region", "s.shop", "s.at", "s.due", "upper(s.region)"];
        if reach.shops {
            choices.push("h.tier");
        }
        if reach.accounts {
            choices.push("a.segment");
        }
        self.pick(&choices)
    }

    fn counted_value(&mut self, reach: Reach) -> String {
        let mut choices = vec![
            "s.shop",
            "s.region",
            "s.units",
            "s.price",
            "s.score",
            "s.paid",
            "s.due",
            "s.amount % 7",
        ];
        if reach.shops {
            choices.push("h.tier");
        }
        self.pick(&choices)
    }

    fn condition(&mut self, reach: Reach) -> String {
        let mut choices = vec![
            "s.paid",
            "NOT s.paid",
            "s.amount > 0",
            "s.score < 0.5",
            "s.shop IS NOT NULL",
            "s.shop IS NULL",
            "s.region = 'north'",
            "s.region <> 'north' AND s.amount >= 10",
            "s.units BETWEEN 2 AND 6",
            "s.price > 100.50",
            "s.shop IN ('s0', 's1')",
            "s.due IS NULL OR s.paid",
        ];
        if reach.shops {
            choices.extend([
                "h.tier = 'gold'",
                "h.tier <> 'gold'",
                "h.shop IS NULL",
                "s.amount > h.ceiling",
            ]);
        }
        if reach.accounts {
            choices.extend(["a.segment = 'large'", "s.price <= a.allowance"]);
        }
        self.pick(&choices)
    }

    /// An aggregate call with `over` (empty in GROUP BY views) behind it.
    fn call(&mut self, reach: Reach, over: &str) -> String {
        let plain = match self.random.below(if self.ordered { 22 } else { 18 }) {
            0 => "count(*)".to_owned(),
            1 => format!("count({})", self.ordered_value(reach)),
            2 => format!("count(DISTINCT {})", self.counted_value(reach)),
            3..=5 => format!("sum({})", self.number(reach)),
            6 | 7 => format!("avg({})", self.number(reach)),
            8 => format!("min({})", self.ordered_value(reach)),
            9 => format!("max({})", self.ordered_value(reach)),
            10 | 11 => {
                let name = self.pick(&["stddev", "stddev_pop", "variance", "var_pop", "var_samp"]);
                format!("{name}({})", self.number(reach))
            }
            12 => format!("approx_distinct({})", self.counted_value(reach)),
            13 => format!(
                "approx_quantile({}, {})",
                self.number(reach),
                self.pick(&["0.5", "0.0", "0.99"])
            ),
            14 => format!("bool_and({})", self.condition(reach)),
            15 => format!("bool_or({})", self.condition(reach)),
            16 | 17 => format!("top_n({}, {})", self.ordered_value(reach), self.pick(&["1", "3"])),
            18 => format!("first_value({})", self.ordered_value(reach)),
            19 => format!("last_value({})", self.ordered_value(reach)),
            _ => format!("last_n({}, {})", self.ordered_value(reach), self.pick(&["1", "2", "4"])),
        };
        let filter = match self.random.chance(25) {
            true => format!(" FILTER (WHERE {})", self.condition(reach)),
            false => String::new(),
        };
        let nulls = if plain.contains("t_value(") { " IGNORE NULLS" } else { "" };
        format!("{plain}{filter}{nulls}{over}")
    }

    /// A call or an expression over calls.
    fn item(&mut self, reach: Reach, overs: &[String]) -> String {
        let over = if overs.is_empty() { String::new() } else { self.random.pick(overs).clone() };
        match self.random.below(12) {
            0 => format!(
                "CAST(count(*) FILTER (WHERE {}){over} AS DOUBLE) / nullif(count(*){over}, 0)",
                self.condition(reach)
            ),
            1 => format!("coalesce(sum(s.amount){over}, 0)"),
            2 => {
                let other =
                    if overs.is_empty() { String::new() } else { self.random.pick(overs).clone() };
                format!("count(*){over} - count(s.units){other}")
            }
            3 => format!("CASE WHEN count(*){over} > 3 THEN 'many' ELSE 'few' END"),
            4 => format!("max(s.amount){over} - min(s.amount){over}"),
            _ => self.call(reach, &over),
        }
    }

    /// FROM with joins, and WHERE.
    fn from(&mut self) -> (Reach, String) {
        let mut reach = Reach::default();
        let mut sql = String::from("FROM sales AS s\n");
        if self.random.chance(40) {
            reach.shops = true;
            sql += &self.pick(&[
                "LEFT JOIN shops AS h ON s.shop = h.shop\n",
                "ASOF LEFT JOIN shops AS h ON s.shop = h.shop AND s.at >= h.changed_at\n",
            ]);
        }
        if self.random.chance(25) {
            reach.accounts = true;
            sql += &self.pick(&[
                "LEFT JOIN accounts AS a ON s.account = a.account\n",
                "ASOF LEFT JOIN accounts AS a ON s.account = a.account AND s.at >= a.since\n",
            ]);
        }
        if self.random.chance(35) {
            sql += &format!("WHERE {}\n", self.condition(reach));
        }
        (reach, sql)
    }

    fn header(&mut self) -> String {
        match self.random.chance(55) {
            true => format!("-- hop: {}\n", self.random.pick(&HOPS)),
            false => String::new(),
        }
    }

    fn keys(&mut self) -> &'static [&'static str] {
        const KEYS: [&[&str]; 5] = [
            &["s.account"],
            &["s.account"],
            &["s.region"],
            &["s.shop"],
            &["s.account", "s.region"],
        ];
        let keys = *self.random.pick(&KEYS);
        self.ordered = self.taste.any_key_order || keys[0] == "s.account";
        keys
    }

    fn windowed(&mut self, name: &str) -> (String, String) {
        let (reach, from) = self.from();
        let keys = self.keys();
        if name == "below" {
            self.below_keys = keys;
        }
        let partition = keys.join(", ");
        let ranges_only = self.random.chance(50);
        let mut windows = Vec::new();
        let mut overs = Vec::new();
        for index in 0..1 + self.random.below(3) {
            let frame = match self.random.below(if ranges_only || !self.ordered { 3 } else { 5 }) {
                0..=2 => format!(
                    " ORDER BY s.at RANGE BETWEEN INTERVAL '{}' PRECEDING AND CURRENT ROW",
                    self.random.pick(&LENGTHS)
                ),
                3 => format!(
                    " ORDER BY s.at ROWS BETWEEN {} PRECEDING AND CURRENT ROW",
                    self.random.below(6)
                ),
                _ => String::new(),
            };
            windows.push(format!("w{index} AS (PARTITION BY {partition}{frame})"));
            overs.push(format!(" OVER w{index}"));
        }
        let mut items: Vec<String> = keys.iter().map(|key| (*key).to_owned()).collect();
        for index in 0..3 + self.random.below(5) {
            items.push(format!("{} AS c{index}", self.item(reach, &overs)));
        }
        // The first window is used at least once: it says what the key is.
        items.push("count(*) OVER w0 AS n".to_owned());
        if self.ordered && self.random.chance(30) {
            let mut bare = vec!["s.amount", "upper(s.region)", "s.at", "s.score * 2.0", "s.price"];
            if reach.shops {
                bare.push("h.tier");
            }
            items.push(format!("{} AS latest", self.pick(&bare)));
        }
        let sql = format!(
            "{}CREATE VIEW {name} AS\nSELECT {}\n{from}WINDOW {};\n",
            self.header(),
            items.join(",\n    "),
            windows.join(",\n    ")
        );
        (name.to_owned(), sql)
    }

    fn grouped(&mut self, name: &str) -> (String, String) {
        let (reach, from) = self.from();
        let keys = match self.random.below(3) {
            0 => self.random.pick(&[
                &["date_trunc('minute', s.at)"][..],
                &["s.account", "s.amount % 3"],
                &["s.due"],
                &["coalesce(s.units, -1)", "s.paid"],
            ]),
            _ => self.keys(),
        };
        self.ordered = self.taste.any_key_order || keys[0] == "s.account";
        let mut items: Vec<String> =
            keys.iter().enumerate().map(|(index, key)| format!("{key} AS k{index}")).collect();
        for index in 0..3 + self.random.below(5) {
            items.push(format!("{} AS c{index}", self.item(reach, &[])));
        }
        let having = match self.random.chance(35) {
            true => format!(
                "\nHAVING {}",
                self.pick(&["count(*) > 2", "max(s.amount) > 60", "bool_or(s.paid)"])
            ),
            false => String::new(),
        };
        let sql = format!(
            "CREATE VIEW {name} AS\nSELECT {}\n{from}GROUP BY {}{having};\n",
            items.join(",\n    "),
            keys.join(", ")
        );
        (name.to_owned(), sql)
    }

    fn over_table(&mut self, name: &str) -> (String, String) {
        let mut items = vec!["h.tier AS k".to_owned(), "count(*) AS n".to_owned()];
        for index in 0..3 + self.random.below(4) {
            let call = self.pick(&[
                "sum(h.ceiling)",
                "avg(h.weight)",
                "min(h.weight)",
                "max(h.ceiling)",
                "stddev(h.weight)",
                "count(DISTINCT h.ceiling)",
                "top_n(h.weight, 2)",
                "min(h.shop)",
                "max(h.changed_at)",
                "bool_and(h.ceiling > 20)",
                "sum(h.weight)",
                "approx_quantile(h.ceiling, 0.5)",
            ]);
            items.push(format!("{call} AS c{index}"));
        }
        if self.taste.any_key_order {
            items.push("last_value(h.shop) AS newest".to_owned());
            items.push("last_n(h.weight, 3) AS weights".to_owned());
        }
        let sql = format!(
            "CREATE VIEW {name} AS\nSELECT {}\nFROM shops AS h\nGROUP BY h.tier;\n",
            items.join(",\n    ")
        );
        (name.to_owned(), sql)
    }

    fn rows_over_view(&mut self, name: &str) -> (String, String) {
        let mut items: Vec<String> =
            self.below_keys.iter().map(|key| key.replacen("s.", "v.", 1)).collect();
        items.push("v.n * 2 + 1 AS twice".to_owned());
        items.push("CASE WHEN v.n > 2 THEN 'busy' ELSE 'calm' END AS mood".to_owned());
        let mut join = "";
        if self.below_keys == ["s.account"] && self.random.chance(60) {
            join = "\nLEFT JOIN accounts AS a ON v.account = a.account";
            items.push("a.segment, a.allowance * 2 AS double_allowance".to_owned());
        }
        if self.below_keys == ["s.shop"] && self.random.chance(60) {
            join = "\nLEFT JOIN shops AS h ON v.shop = h.shop";
            items.push("h.tier, h.ceiling - v.n AS left_to_ceiling".to_owned());
        }
        let filter = if self.random.chance(50) { "\nWHERE v.n > 1" } else { "" };
        let items = items.join(",\n    ");
        let sql =
            format!("CREATE VIEW {name} AS\nSELECT {items}\nFROM below AS v{join}{filter};\n");
        (name.to_owned(), sql)
    }

    fn groups_over_view(&mut self, name: &str) -> (String, String) {
        let having = if self.random.chance(30) { "\nHAVING count(*) > 1" } else { "" };
        let sql = format!(
            "CREATE VIEW {name} AS\nSELECT v.n, count(*) AS keys, sum(v.n) AS total, max(v.n) AS most\nFROM below AS v\nGROUP BY v.n{having};\n"
        );
        (name.to_owned(), sql)
    }
}
