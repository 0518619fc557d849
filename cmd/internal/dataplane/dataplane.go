// Package dataplane is what the programs that serve traffic share, gatehouse run and gatehouse-proxy: flags, the log, the Engine with its
// telemetry, the admin listener, and the way down. It does not know where configurations come from.
//
//	Flags.Add -> Flags.Logger -> Start -> Plane.Admin -> (configurations to Plane.Engine) -> Plane.Stop
package dataplane

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
	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/admin"
	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/telemetry"
)

// finalTime is how long the admin listener and the last deliveries of telemetry may take when the program stops.
const finalTime = 5 * time.Second

// Flags are the flags that every program with a data plane has.
type Flags struct {
	Admin          string
	AccessLog      string
	AccessLogQuery bool
	Log            LogFlags
	DrainTime      time.Duration
	Limits         downstream.Limits
}

// LogFlags are the flags of a program's own log.
type LogFlags struct {
	Format string
	Level  slog.Level
}

// Add defines the flags of a command.
func (d *Flags) Add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&d.Admin, "admin", "127.0.0.1:15000", "address of /ready, /metrics, /config and /debug/pprof/; \"\" for none")
	f.StringVar(&d.AccessLog, "access-log", "-", "access log file, \"-\" for stdout, \"\" for none; reopened on SIGHUP")
	f.BoolVar(&d.AccessLogQuery, "access-log-query", false, "log the query as well; queries often carry secrets")
	d.Log.Add(c)
	f.DurationVar(&d.DrainTime, "drain-time", 30*time.Second, "how long exchanges may take to finish when stopping")
	d.Limits = downstream.Limits{}.WithDefaults()
	limitFlags(c, &d.Limits)
}

// Add defines the flags of a command.
func (l *LogFlags) Add(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&l.Format, "log-format", "text", "format of the program's own log on stderr: text or json")
	f.TextVar(&l.Level, "log-level", slog.LevelInfo, "least level of the program's own log: debug, info, warn or error")
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
	f.DurationVar(&l.StreamIdleTimeout, "stream-idle-timeout", l.StreamIdleTimeout, "most time without a byte either way on a TCP or TLS connection that is passed on, -1s for no limit")
	f.DurationVar(&l.SessionIdleTimeout, "udp-idle-timeout", l.SessionIdleTimeout, "time without a datagram either way after which a UDP session is over")
	f.IntVar(&l.MaxSessions, "max-udp-sessions", l.MaxSessions, "most UDP sessions of one socket (over it: the datagrams of new clients are dropped)")
}

// Logger returns the program's own log, on stderr.
func (l LogFlags) Logger() (*slog.Logger, error) {
	options := &slog.HandlerOptions{Level: l.Level}
	switch l.Format {
	case "text":
		return slog.New(slog.NewTextHandler(os.Stderr, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(os.Stderr, options)), nil
	}
	return nil, fmt.Errorf("--log-format is %q; it must be text or json", l.Format)
}

// Plane is an Engine with what belongs to it.
type Plane struct {
	Engine    *gateway.Engine
	Filters   *filters.Set
	Telemetry *telemetry.Telemetry

	flags      *Flags
	logger     *slog.Logger
	admin      *admin.Server // nil for none
	stopReopen func()
}

// Start makes a Plane that serves nothing yet. The context bounds the set-up only. The caller calls Stop.
func Start(ctx context.Context, f *Flags, logger *slog.Logger, version string) (*Plane, error) {
	TuneRuntime(logger)
	set, err := filterset.New()
	if err != nil {
		return nil, err
	}
	seen, err := telemetry.New(ctx, telemetry.Options{
		AccessLog: f.AccessLog, AccessLogQuery: f.AccessLogQuery, TracesFromEnv: true, Version: version, Logger: logger,
	})
	if err != nil {
		return nil, err
	}
	engine, err := gateway.New(gateway.Options{Filters: set, Telemetry: seen, Logger: logger, Limits: f.Limits, DrainTime: f.DrainTime})
	if err != nil {
		return nil, errors.Join(err, seen.Shutdown(ctx))
	}
	p := &Plane{Engine: engine, Filters: set, Telemetry: seen, flags: f, logger: logger}
	p.stopReopen = reopenOnHangup(seen, logger)
	return p, nil
}

// Admin opens the admin listener, unless --admin is "". ready says why the program does not serve, or nil; shown returns what /config
// shows, in which secrets are unprintable.
func (p *Plane) Admin(ready func() error, shown func() any) error {
	if p.flags.Admin == "" {
		return nil
	}
	server, err := admin.Listen(p.flags.Admin, admin.Options{Ready: ready, Metrics: p.Telemetry.Handler(), Config: shown})
	if err != nil {
		return err
	}
	p.admin = server
	p.logger.Info("admin listener", "address", "http://"+server.Addr())
	return nil
}

// Stop lets exchanges finish for as long as --drain-time says and ends everything.
func (p *Plane) Stop() error {
	p.logger.Info("stopping", "drain time", p.flags.DrainTime)
	drain, cancel := context.WithTimeout(context.Background(), p.flags.DrainTime)
	defer cancel()
	if err := p.Engine.Shutdown(drain); err != nil {
		p.logger.Warn("stopped before every exchange had finished", "error", err)
	}
	p.stopReopen()
	final, cancelFinal := context.WithTimeout(context.Background(), finalTime)
	defer cancelFinal()
	var err error
	if p.admin != nil {
		err = p.admin.Close(final)
	}
	return errors.Join(err, p.Telemetry.Shutdown(final))
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
