package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/cmd/internal/filterset"
	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway"
)

func validateCommand() *cobra.Command {
	var output, state string
	c := &cobra.Command{
		Use:   "validate PATH...",
		Short: "Say what is wrong with Gateway API objects",
		Long: "Reads the objects as `gatehouse run` does and says for each one, with file and line, what is wrong and what would be\n" +
			"set aside. Nothing is served. The exit code is 1 if anything is wrong.",
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			report, err := inspect(cmd.Context(), paths, state)
			if err != nil {
				return err
			}
			defer report.close()
			if err := printProblems(cmd.OutOrStdout(), report, output); err != nil {
				return err
			}
			if len(report.problems) > 0 {
				return errSaid
			}
			return nil
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "text", "text or json")
	c.Flags().StringVar(&state, "state", "", "folder of the development CA, as for run")
	return c
}

// inspection is a configuration that was read and compiled without being served.
type inspection struct {
	engine   *gateway.Engine
	problems []problem.Problem
	objects  int
}

func (i *inspection) close() { _ = i.engine.Shutdown(context.Background()) }

// inspect reads and compiles a configuration by the code that `run` uses, and opens no socket.
func inspect(ctx context.Context, paths []string, state string) (*inspection, error) {
	folder, err := openFolder(paths, state)
	if err != nil {
		return nil, err
	}
	st, err := folder.Load(ctx)
	if err != nil {
		return nil, err
	}
	set, err := filterset.New()
	if err != nil {
		return nil, err
	}
	engine, err := gateway.New(gateway.Options{Filters: set, Detached: true})
	if err != nil {
		return nil, err
	}
	planned := gatewayapi.New(gatewayapi.Options{Filters: set, Standalone: true}).Translate(st)
	applied, err := engine.Apply(ctx, planned.Config)
	if err != nil {
		return nil, err
	}
	return &inspection{engine: engine, problems: controller.Problems(st, planned, applied, time.Now()), objects: len(st.Where)}, nil
}

func printProblems(w io.Writer, report *inspection, output string) error {
	switch output {
	case "json":
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(slices.Concat([]problem.Problem{}, report.problems))
	case "text":
		for _, p := range report.problems {
			line := p.Error()
			if p.SetAside != "" {
				line += "\n    set aside: " + p.SetAside
			}
			if _, err := fmt.Fprintln(w, line); err != nil {
				return err
			}
		}
		_, err := fmt.Fprintf(w, "%d objects, %d problems\n", report.objects, len(report.problems))
		return err
	}
	return fmt.Errorf("--output is %q; it must be text or json", output)
}
