// Command bookinfo is a small bookshop made of services, for trying the gateway on something that looks real: an HTML page
// (productpage), facts (details), stars (ratings), three versions of reviews, and audit, which counts mirrored requests. Each
// service has a loopback port of its own, the ports that deploy/examples/bookinfo names.
//
// What shows the gateway at work: the page fetches the reviews through the gateway, so that each reload is another draw from
// the canary's weights, and a live panel counts which version answered.
//
//	bookinfo                              runs the services until Ctrl-C
//	bookinfo demo -- COMMAND ARGS...      runs the services and a gateway in front of them
package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// stopTimeout bounds how long requests in progress may take when the services stop.
const stopTimeout = 5 * time.Second

func main() {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	os.Exit(run(os.Args[1:], signals, os.Stdout, os.Stderr))
}

// run is main with its inputs as arguments; it returns the exit code.
func run(args []string, signals <-chan os.Signal, stdout, stderr io.Writer) int {
	code := 0
	root := rootCommand(signals, &code)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	if err := root.Execute(); err != nil {
		fmt.Fprintln(stderr, "bookinfo:", err)
		return max(code, 1)
	}
	return code
}

func rootCommand(signals <-chan os.Signal, code *int) *cobra.Command {
	s := defaultSettings()
	root := &cobra.Command{
		Use:           "bookinfo",
		Short:         "Run the Bookinfo services on loopback ports",
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return serve(s, signals, cmd.OutOrStdout())
		},
	}
	root.PersistentFlags().StringVar(&s.gateway, "gateway", s.gateway, "plain HTTP `URL` of the gateway, by which the page calls reviews")
	root.PersistentFlags().StringVar(&s.reviewsHost, "reviews-host", s.reviewsHost, "`host` that the page names when it calls reviews")
	root.AddCommand(demoCommand(s, signals, code))
	return root
}

func demoCommand(s *settings, signals <-chan os.Signal, code *int) *cobra.Command {
	d := demo{readyURL: "http://127.0.0.1:15000/ready", readyTimeout: time.Minute}
	cmd := &cobra.Command{
		Use:   "demo [flags] [--] COMMAND [ARGS...]",
		Short: "Run the services and a gateway in front of them, and say what to try",
		Long: `Run the services, then COMMAND, which starts a gateway in front of them. When the gateway is ready, print URLs to open and
commands to try. Interrupt and termination go to the gateway first; the services stop after it. The exit code is the gateway's.`,
		Example: "  bookinfo demo -- gatehouse run --config deploy/examples/bookinfo --state .state",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			d.command, d.stdout, d.stderr = args, cmd.OutOrStdout(), cmd.ErrOrStderr()
			if d.ca == "" {
				d.ca = filepath.Join(flagValue(args, "state", ".state"), "development-ca", "ca.crt")
			}
			*code, err = d.run(s, signals)
			return err
		},
	}
	// Flags after COMMAND are COMMAND's own.
	cmd.Flags().SetInterspersed(false)
	cmd.Flags().StringVar(&d.readyURL, "ready-url", d.readyURL, "`URL` that answers 200 when the gateway serves")
	cmd.Flags().DurationVar(&d.readyTimeout, "ready-timeout", d.readyTimeout, "how long to wait for the gateway")
	cmd.Flags().StringVar(&d.ca, "ca", "", "`file` of the development CA, named in the commands to try (default: development-ca/ca.crt in COMMAND's --state folder)")
	return cmd
}

// serve runs the services until a signal comes or one of them fails.
func serve(s *settings, signals <-chan os.Signal, out io.Writer) error {
	b, err := start(s)
	if err != nil {
		return err
	}
	for _, name := range serviceNames() {
		fmt.Fprintf(out, "%-12s http://%s\n", name, b.addr(name))
	}
	fmt.Fprintf(out, "\nThe page: http://%s/productpage (its reviews come through the gateway, %s)\n", b.addr(productpageName), s.gateway)
	select {
	case <-signals:
	case err = <-b.failed:
	}
	return cmp.Or(err, b.stop())
}

// stop ends the event streams, waits for requests in progress and closes the ports.
func (b *bookinfo) stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	return b.shutdown(ctx)
}
