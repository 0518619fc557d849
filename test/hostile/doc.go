// Package hostile sends what no honest client and no honest origin sends. It judges the gateway by the bytes that reach the other side, not
// by the status alone: a request that is refused but forwarded did its harm. README.md tells which test holds what.
//
// It knows the gateway from outside: its sockets, through package harness, and nothing that lies behind them.
package hostile
