"""What a dynamic network is: graph, rules, costs, traces, invariants, reference semantics."""
