package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/cmd/internal/filterset"
	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/gatewayapi"
	"gatehouse.dev/gatehouse/controller/publish"
	"gatehouse.dev/gatehouse/controller/source"
	"gatehouse.dev/gatehouse/controller/source/devcert"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/admin"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/telemetry"
)

// runOptions are the flags of `gatehouse run`.
type runOptions struct {
	config         []string
	state          string
	admin          string
	accessLog      string
	accessLogQuery bool
	logFormat      string
	logLevel       slog.Level
	drainTime      time.Duration
	limits         downstream.Limits
}

func runCommand() *cobra.Command {
	o := &runOptions{limits: downstream.Limits{}.WithDefaults()}
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
	f.StringVar(&o.admin, "admin", "127.0.0.1:15000", "address of /ready, /metrics, /config and /debug/pprof/; \"\" for none")
	f.StringVar(&o.accessLog, "access-log", "-", "access log file, \"-\" for stdout, \"\" for none; reopened on SIGHUP")
	f.BoolVar(&o.accessLogQuery, "access-log-query", false, "log the query as well; queries often carry secrets")
	f.StringVar(&o.logFormat, "log-format", "text", "format of the program's own log on stderr: text or json")
	f.TextVar(&o.logLevel, "log-level", slog.LevelInfo, "least level of the program's own log: debug, info, warn or error")
	f.DurationVar(&o.drainTime, "drain-time", 30*time.Second, "how long exchanges may take to finish when stopping")
	limitFlags(c, &o.limits)
	if err := c.MarkFlagRequired("config"); err != nil {
		panic(err) // the flag is defined above
	}
	return c
}

func limitFlags(c *cobra.Command, l *downstream.Limits) {
	f := c.Flags()
	f.IntVar(&l.MaxHeaderBytes, "max-header-bytes", l.MaxHeaderBytes, "most bytes of a request's head (over it: 431)")
	f.IntVar(&l.MaxHeaderCount, "max-header-count", l.MaxHeaderCount, "most header fields of a request (over it: 431)")
	f.Int64Var(&l.MaxBodyBytes, "max-body-bytes", l.MaxBodyBytes, "most bytes of a request's body, -1 for no limit (over it: 413)")
	f.IntVar(&l.MaxStreams, "max-streams", l.MaxStreams, "most requests at work on one HTTP/2 or HTTP/3 connection")
	f.IntVar(&l.MaxConnections, "max-connections", l.MaxConnections, "most client connections of one socket, TCP and QUIC each")
	f.DurationVar(&l.HandshakeTimeout, "handshake-timeout", l.HandshakeTimeout, "most time for a TLS or QUIC handshake")
	f.DurationVar(&l.HeaderTimeout, "header-timeout", l.HeaderTimeout, "most time for a request's head")
	f.DurationVar(&l.BodyIdleTimeout, "body-idle-timeout", l.BodyIdleTimeout, "most silence within a body (over it: 408)")
	f.DurationVar(&l.IdleTimeout, "idle-timeout", l.IdleTimeout, "most time between requests on a connection")
}

func run(ctx context.Context, o *runOptions) error {
	logger, err := newLogger(o)
	if err != nil {
		return err
	}
	tuneRuntime(logger)
	folder, err := openFolder(o.config, o.state)
	if err != nil {
		return err
	}
	set, err := filterset.New()
	if err != nil {
		return err
	}
	seen, err := telemetry.New(ctx, telemetry.Options{
		AccessLog: o.accessLog, AccessLogQuery: o.accessLogQuery, TracesFromEnv: true, Version: version, Logger: logger,
	})
	if err != nil {
		return err
	}
	engine, err := gateway.New(gateway.Options{Filters: set, Telemetry: seen, Logger: logger, Limits: o.limits, DrainTime: o.drainTime})
	if err != nil {
		return err
	}
	translator := gatewayapi.New(gatewayapi.Options{Filters: set, Standalone: true})
	loop := controller.New(folder, translator, publish.New(engine), logger, func(r *controller.Report) { countProblems(seen, r) })
	closeAdmin, err := openAdmin(o.admin, loop, seen, logger)
	if err != nil {
		return err
	}
	stopReopen := reopenOnHangup(seen, logger)

	runErr := loop.Run(ctx)
	if errors.Is(runErr, context.Canceled) {
		runErr = nil
	}
	logger.Info("stopping", "drain time", o.drainTime)
	drain, cancel := context.WithTimeout(context.Background(), o.drainTime)
	defer cancel()
	if err := engine.Shutdown(drain); err != nil {
		logger.Warn("stopped before every exchange had finished", "error", err)
	}
	stopReopen()
	final, cancelFinal := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancelFinal()
	return errors.Join(runErr, closeAdmin(final), seen.Shutdown(final))
}

func newLogger(o *runOptions) (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: o.logLevel}
	switch o.logFormat {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format is %q; it must be text or json", o.logFormat)
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

func openAdmin(address string, loop *controller.Loop, seen *telemetry.Telemetry, logger *slog.Logger) (func(context.Context) error, error) {
	if address == "" {
		return func(context.Context) error { return nil }, nil
	}
	server, err := admin.Listen(address, admin.Options{
		Ready:   loop.Ready,
		Metrics: seen.Handler(),
		Config:  func() any { return shown(loop.Report()) },
	})
	if err != nil {
		return nil, err
	}
	logger.Info("admin listener", "address", "http://"+server.Addr())
	return server.Close, nil
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

// reopenOnHangup opens the access log anew on SIGHUP, for log rotation.
func reopenOnHangup(seen *telemetry.Telemetry, logger *slog.Logger) (stop func()) {
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGHUP)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range hangup {
			if err := seen.ReopenAccessLog(); err != nil {
				logger.Error("the access log cannot be opened anew; the old file stays in use", "error", err)
			}
		}
	}()
	return func() {
		signal.Stop(hangup)
		close(hangup)
		<-done
	}
}
