// Gatehouse is an edge proxy that implements the Kubernetes Gateway API: it runs standalone on a folder of YAML, says what is wrong with
// it, and explains where a request goes.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

// version is set by the linker.
var version = "development"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// A second signal ends the process at once.
	context.AfterFunc(ctx, stop)
	if err := command().ExecuteContext(ctx); err != nil {
		if !errors.Is(err, errSaid) {
			fmt.Fprintln(os.Stderr, "gatehouse:", err)
		}
		os.Exit(1)
	}
}

// errSaid is an error whose text the command has printed already.
var errSaid = errors.New("failed")

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "gatehouse",
		Short: "One gate for what enters and what leaves a mesh",
		Long: "Gatehouse is an edge proxy that implements the Kubernetes Gateway API.\n" +
			"It terminates TLS, HTTP/1.1, HTTP/2 and HTTP/3 and routes requests as Gateways and HTTPRoutes say.",
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.AddCommand(runCommand(), controllerCommand(), validateCommand(), explainCommand(), getCommand())
	return root
}
