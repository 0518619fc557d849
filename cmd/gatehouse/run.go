package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/cmd/internal/dataplane"
	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/controller/source/devcert"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/telemetry"
)

// runOptions are the flags of `gatehouse run`.
type runOptions struct {
	config []string
	state  string
	plane  dataplane.Flags
}

func runCommand() *cobra.Command {
	o := &runOptions{}
	c := &cobra.Command{
		Use:   "run --config DIR",
		Short: "Serve the Gateways in a folder of YAML",
		Long: "Reads the Gateway API objects in the given folders and files, serves them, and follows their changes.\n" +
			"An object that is wrong is set aside with a message; everything else is served.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringSliceVar(&o.config, "config", nil, "folder or file with Kubernetes objects in YAML or JSON; may be repeated")
	f.StringVar(&o.state, "state", "", "folder for the development CA and its certificates; without it none are made")
	o.plane.Add(c)
	if err := c.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

func run(ctx context.Context, o *runOptions) error {
	logger, err := o.plane.Log.Logger()
	if err != nil {
		return err
	}
	folder, err := openFolder(o.config, o.state)
	if err != nil {
		return err
	}
	plane, err := dataplane.Start(ctx, &o.plane, logger, version)
	if err != nil {
		return err
	}
	translator := gatewayapi.New(gatewayapi.Options{Filters: plane.Filters, Standalone: true})
	loop := controller.New(folder, translator, publish.New(plane.Engine), logger,
		func(r *controller.Report) { countProblems(plane.Telemetry, r) })
	if err := plane.Admin(loop.Ready, func() any { return shown(loop.Report()) }); err != nil {
		return errors.Join(err, plane.Stop())
	}
	runErr := loop.Run(ctx)
	if errors.Is(runErr, context.Canceled) {
		runErr = nil
	}
	return errors.Join(runErr, plane.Stop())
}

// openFolder returns the standalone source, with the development CA when there is a state folder.
func openFolder(paths []string, state string) (*source.Folder, error) {
	for _, path := range paths {
		if _, err := os.Stat(path); err != nil {
			return nil, fmt.Errorf("--config: %w", err)
		}
	}
	var options []source.Option
	if state != "" {
		authority, err := devcert.Open(state)
		if err != nil {
			return nil, fmt.Errorf("--state: %w", err)
		}
		options = append(options, source.WithIssuer(authority))
	}
	return source.NewFolder(paths, options...), nil
}

// shown is a report as /config has it: without credentials.
func shown(r *controller.Report) any {
	return struct {
		*controller.Report
		Config any `json:"config"` // in place of Report's
	}{r, config.Redacted(r.Config)}
}

func countProblems(seen *telemetry.Telemetry, r *controller.Report) {
	byReason := map[string]int{}
	for _, p := range r.Problems {
		byReason[string(p.Reason)]++
	}
	seen.SetProblems(byReason)
}
