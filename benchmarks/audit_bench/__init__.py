"""How often the audit is right: small networks of known truth, audited and judged again on subsets."""
