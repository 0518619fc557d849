//go:build !race

package exchange

// Poison overwrites, in builds with the race detector, memory that views must not look into any more. Here it does nothing.
func Poison([]byte) {}
