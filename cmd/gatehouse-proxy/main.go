// Gatehouse-proxy is the lean data plane that the controller starts for each Gateway: it gets its configuration from the controller, serves
// it, and goes on serving it while the controller is away. It links nothing of Kubernetes.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "gatehouse-proxy:", err)
		os.Exit(1)
	}
}
