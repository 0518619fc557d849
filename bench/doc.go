// Command bench measures built proxies from outside, as their users meet them: gatehouse and, side by side with it, the peers that it finds.
// It starts each one in turn on a CPU of its own, loads it from another one, and reports requests per second, CPU time per request, latency
// and memory. README.md says how to run it and how to read what it prints.
//
//	scenarios.go   what is measured: a list of values, one a scenario
//	runner.go      how: rounds, peers in turn, one measurement
//	host.go        what a run needs besides: CPUs, certificate, folders, origin
//	internal/peer    how each proxy is configured and started
//	internal/load    what loads them
//	internal/origin  what stands behind them
//	internal/proc    processes, and what they cost
//	internal/report  figures, table, JSON, page
//
// It imports nothing of the gateway.
package main
