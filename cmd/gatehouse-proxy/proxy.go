package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"gatehouse.dev/gatehouse/cmd/internal/dataplane"
	"gatehouse.dev/gatehouse/gateway"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/wire/client"
)

// options are the flags of gatehouse-proxy.
type options struct {
	controller string
	serverName string
	gateway    string
	tokenFile  string
	caFile     string
	plane      dataplane.Flags
}

func command() *cobra.Command {
	o := &options{}
	c := &cobra.Command{
		Use:   "gatehouse-proxy --controller HOST:PORT --gateway NAMESPACE/NAME --token-file FILE --ca-file FILE",
		Short: "Serve one Gateway as the controller says",
		Long: "Follows the controller and serves the Gateway whose token it has. While the controller is away, what runs goes on.\n" +
			"The environment variables POD_NAMESPACE and POD_NAME name the proxy to the controller.",
		Args:          cobra.NoArgs,
		Version:       version,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE:          func(cmd *cobra.Command, _ []string) error { return run(cmd.Context(), o) },
	}
	f := c.Flags()
	f.StringVar(&o.controller, "controller", "", "address of the controller, HOST:PORT")
	f.StringVar(&o.serverName, "server-name", "", "name that the controller's certificate must have (default: HOST of --controller)")
	f.StringVar(&o.gateway, "gateway", "", "Gateway to serve, NAMESPACE/NAME")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token that the controller knows the proxy by; read anew for each connection")
	f.StringVar(&o.caFile, "ca-file", "", "file with the CAs of the controller's certificate, PEM; read anew for each connection")
	o.plane.Add(c)
	for _, name := range []string{"controller", "gateway", "token-file", "ca-file"} {
		if err := c.MarkFlagRequired(name); err != nil {
			panic(err) // the flag is defined above
		}
	}
	return c
}

// check completes the options and says what is wrong with them.
func (o *options) check() error {
	host, port, err := net.SplitHostPort(o.controller)
	if err != nil || host == "" || port == "" {
		return fmt.Errorf("--controller is %q; it must be HOST:PORT", o.controller)
	}
	if o.serverName == "" {
		o.serverName = host
	}
	if namespace, name, ok := strings.Cut(o.gateway, "/"); !ok || namespace == "" || name == "" || strings.Contains(name, "/") {
		return fmt.Errorf("--gateway is %q; it must be NAMESPACE/NAME", o.gateway)
	}
	return nil
}

func run(ctx context.Context, o *options) error {
	if err := o.check(); err != nil {
		return err
	}
	logger, err := o.plane.Log.Logger()
	if err != nil {
		return err
	}
	plane, err := dataplane.Start(ctx, &o.plane, logger, version)
	if err != nil {
		return err
	}
	s := &state{gateway: o.gateway, engine: plane.Engine}
	s.current.Store(&report{Gateway: o.gateway, config: &config.Config{}})
	if err := plane.Admin(s.ready, s.shown); err != nil {
		return errors.Join(err, plane.Stop())
	}
	followErr := client.Follow(ctx, client.Options{
		Address: o.controller, Gateway: o.gateway, Proxy: proxyName(),
		TLS: o.tls, Token: o.token, Logger: logger,
	}, s.apply)
	if errors.Is(followErr, context.Canceled) {
		followErr = nil
	}
	return errors.Join(followErr, plane.Stop())
}

// proxyName is what the controller's log calls the proxy.
func proxyName() string {
	pod := os.Getenv("POD_NAME")
	if pod == "" {
		pod, _ = os.Hostname() // it only names
	}
	return os.Getenv("POD_NAMESPACE") + "/" + pod
}

// token reads the token of now; a kubelet replaces it before it expires.
func (o *options) token() (string, error) {
	text, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--token-file: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("--token-file: %s is empty", o.tokenFile)
	}
	return token, nil
}

// tls returns settings that trust the CAs of now.
func (o *options) tls() (*tls.Config, error) {
	text, err := os.ReadFile(o.caFile)
	if err != nil {
		return nil, fmt.Errorf("--ca-file: %w", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("--ca-file: %s has no certificate in PEM", o.caFile)
	}
	return &tls.Config{RootCAs: pool, ServerName: o.serverName, MinVersion: tls.VersionTLS13}, nil
}

// state is what the admin listener shows.
type state struct {
	gateway string
	engine  *gateway.Engine
	current atomic.Pointer[report]
}

// report is what came of the last configurations. It is replaced, not changed.
type report struct {
	Gateway string `json:"gateway"`
	// Applied is when the running configuration took effect; zero before the first.
	Applied time.Time `json:"applied,omitzero"`
	// Refused says why the newest configuration was refused as a whole; the one shown still runs.
	Refused string `json:"refused,omitempty"`
	// Listeners and Clusters are what of the running configuration does not serve, by name.
	Listeners map[string]string `json:"listeners,omitempty"`
	Clusters  map[string]string `json:"clusters,omitempty"`
	// Config is the running configuration without credentials; filled when it is shown.
	Config any `json:"config"`

	config  *config.Config
	serving bool
}

// apply is called from one goroutine.
func (s *state) apply(ctx context.Context, cfg *config.Config) (config.Applied, error) {
	applied, err := s.engine.Apply(ctx, cfg)
	if err != nil {
		next := *s.current.Load()
		next.Refused = err.Error()
		s.current.Store(&next)
		return applied, err
	}
	s.current.Store(&report{
		Gateway: s.gateway, Applied: time.Now(), Listeners: texts(applied.Listeners), Clusters: texts(applied.Clusters), config: cfg,
		// Something serves, or there is nothing to serve.
		serving: len(applied.Listeners) == 0 || len(applied.Listeners) < len(cfg.Listeners),
	})
	return applied, nil
}

func texts(problems map[string]error) map[string]string {
	out := make(map[string]string, len(problems))
	for name, err := range problems {
		out[name] = err.Error()
	}
	return out
}

// ready says why nothing is served yet, or nil.
func (s *state) ready() error {
	switch r := s.current.Load(); {
	case r.Applied.IsZero() && r.Refused != "":
		return fmt.Errorf("the first configuration is refused: %s", r.Refused)
	case r.Applied.IsZero():
		return errors.New("no configuration has come from the controller yet")
	case !r.serving:
		return errors.New("no listener could be bound; see /config")
	}
	return nil
}

func (s *state) shown() any {
	r := *s.current.Load()
	r.Config = config.Redacted(r.config)
	return &r
}
