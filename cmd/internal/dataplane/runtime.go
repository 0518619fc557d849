package dataplane

import (
	"log/slog"
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
)

const (
	// gcPercent lets the heap grow to three times what is alive before it is collected: what is alive in a gateway is small next to the
	// machine, and what is collected (handshakes, HTTP/3) is short-lived. More would show in the memory of idle connections. GOGC overrides it.
	gcPercent = 200
	// memoryShare is the part of the container's memory beyond which the collector works harder; the rest is for the kernel's socket
	// buffers and for what Go does not count. GOMEMLIMIT overrides it.
	memoryShare = 0.9
)

// TuneRuntime fits Go's runtime to a proxy and to the container it runs in. The number of threads needs nothing: Go takes it from the
// container's CPU limit and follows its changes.
func TuneRuntime(logger *slog.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// It leaves a GOMEMLIMIT alone, and memory that has no limit too.
	if limit, err := memlimit.Set(memlimit.WithProvider(memlimit.FromCgroup), memlimit.WithRatio(memoryShare)); err == nil && limit > 0 {
		logger.Debug("memory limit", "bytes", limit)
	}
}
