//! What a server does not show to a user without the right to see it: the tools leave it out of the dump and succeed.

/// What is left out, and the rights of which any one shows it. Events and views without theirs are errors.
const SHOWN_BY: [(&str, &[&str]); 3] = [
    ("tables (SELECT)", &["SELECT"]),
    ("triggers (TRIGGER)", &["TRIGGER"]),
    (
        "routines (SELECT on *.* or on mysql.*)",
        &["SHOW CREATE ROUTINE", "SHOW_ROUTINE", "EXECUTE", "ALTER ROUTINE"],
    ),
];

/// Where SELECT shows routines.
const ROUTINES_IN: [&str; 3] = ["*.*", "`mysql`.*", "`mysql`.`proc`"];

/// Out of the answer to `SHOW GRANTS`: what of the database (of the whole server where it is empty) the user may not
/// see all of. Nothing where its rights are not known, as those of a role.
pub fn unseen(grants: &str, database: &str) -> Vec<&'static str> {
    let granted: Option<Vec<Grant<'_>>> = grants.lines().map(Grant::parse).collect();
    let Some(granted) = granted.filter(|granted| !granted.is_empty()) else { return Vec::new() };
    let everywhere: Vec<_> = granted.iter().filter(|grant| grant.reaches(database)).collect();
    let shows_routines =
        granted.iter().any(|grant| ROUTINES_IN.contains(&grant.scope) && grant.has("SELECT"));
    let is_shown = |(what, rights): &(&str, &[&str])| {
        rights.iter().any(|right| everywhere.iter().any(|grant| grant.has(right)))
            || what.starts_with("routines") && shows_routines
    };
    SHOWN_BY.iter().filter(|needed| !is_shown(needed)).map(|(what, _)| *what).collect()
}

/// `GRANT rights ON scope TO somebody`.
struct Grant<'a> {
    rights: &'a str,
    scope: &'a str,
}

impl<'a> Grant<'a> {
    /// None of a role, which has no scope.
    fn parse(line: &'a str) -> Option<Self> {
        let (rights, rest) = line.strip_prefix("GRANT ")?.split_once(" ON ")?;
        let (scope, _) = rest.split_once(" TO ")?;
        Some(Self { rights, scope })
    }

    fn has(&self, right: &str) -> bool {
        self.rights.split(", ").any(|has| has == right || has == "ALL PRIVILEGES")
    }

    /// Whether it is for all of the database. A pattern is taken to mean it.
    fn reaches(&self, database: &str) -> bool {
        let name = self.scope.strip_prefix('`').and_then(|scope| scope.strip_suffix("`.*"));
        let is_it = |name: &str| name.contains('%') || name.replace('\\', "").replace("``", "`") == database;
        self.scope == "*.*" || !database.is_empty() && name.is_some_and(is_it)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_user_may_not_see_is_known_from_its_grants() {
        let usage = "GRANT USAGE ON *.* TO `u`@`h` IDENTIFIED BY PASSWORD '*D8'";
        let with = |more: &str, database: &str| unseen(&format!("{usage}\n{more}\n"), database);
        let all = ["tables (SELECT)", "triggers (TRIGGER)", "routines (SELECT on *.* or on mysql.*)"];
        assert_eq!(with("GRANT SELECT, SHOW VIEW, EVENT ON `shop`.* TO `u`@`h`", "shop"), all[1..]);
        assert_eq!(with("GRANT SELECT, TRIGGER ON `shop`.* TO `u`@`h`", "shop"), all[2..]);
        assert_eq!(with("GRANT SELECT, TRIGGER ON `shop`.* TO `u`@`h`", "shop2"), all);
        assert_eq!(with("GRANT SELECT, TRIGGER ON `shop`.* TO `u`@`h`", ""), all);
        assert_eq!(with("GRANT SELECT ON `shop`.`orders` TO `u`@`h`", "shop"), all);
        assert_eq!(with("GRANT SELECT, TRIGGER ON *.* TO `u`@`h`", "shop"), [""; 0]);
        assert_eq!(with("GRANT ALL PRIVILEGES ON `a\\_``b`.* TO `u`@`h`", "a_`b"), [""; 0]);
        assert_eq!(with("GRANT ALL PRIVILEGES ON `sh%`.* TO `u`@`h` WITH GRANT OPTION", "shop"), [""; 0]);
        let proc = "GRANT SELECT, TRIGGER ON `shop`.* TO `u`@`h`\nGRANT SELECT ON `mysql`.`proc` TO `u`@`h`";
        assert_eq!(with(proc, "shop"), [""; 0]);
        // What a role may is not said here, and an answer that is none says nothing.
        assert_eq!(with("GRANT `backup` TO `u`@`h`", "shop"), [""; 0]);
        assert_eq!(unseen("", "shop"), [""; 0]);
    }
}
