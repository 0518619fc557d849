package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/spf13/cobra"
)

type getOptions struct {
	http3, http2, insecure, include bool
	caCert, connectTo, method       string
	headers                         []string
	timeout                         time.Duration
}

// getCommand is a small client, because few machines have a curl that speaks HTTP/3.
func getCommand() *cobra.Command {
	o := &getOptions{}
	c := &cobra.Command{
		Use:     "get URL",
		Short:   "Fetch a URL, by HTTP/3 if asked",
		Example: "  gatehouse get --http3 --cacert .state/development-ca/ca.crt https://localhost:8443/productpage",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			return get(ctx, o, args[0], cmd.OutOrStdout())
		},
	}
	f := c.Flags()
	f.BoolVar(&o.http3, "http3", false, "use HTTP/3")
	f.BoolVar(&o.http2, "http2", false, "use HTTP/2; with prior knowledge for http:// URLs")
	f.BoolVarP(&o.include, "include", "i", false, "print status line and response headers too")
	f.BoolVarP(&o.insecure, "insecure", "k", false, "accept any certificate")
	f.StringVar(&o.caCert, "cacert", "", "PEM file with the CA to trust instead of the system's")
	f.StringVar(&o.connectTo, "connect-to", "", "HOST:PORT to connect to in place of the URL's")
	f.StringVarP(&o.method, "request", "X", http.MethodGet, "request method")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "request header 'name: value'; may be repeated")
	f.DurationVarP(&o.timeout, "max-time", "m", 30*time.Second, "most time for the whole request")
	c.MarkFlagsMutuallyExclusive("http2", "http3")
	return c
}

func get(ctx context.Context, o *getOptions, url string, out io.Writer) error {
	request, err := http.NewRequestWithContext(ctx, o.method, url, nil)
	if err != nil {
		return err
	}
	for _, line := range o.headers {
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("header %q must be 'name: value'", line)
		}
		if strings.EqualFold(name, "host") {
			request.Host = strings.TrimSpace(value)
			continue
		}
		request.Header.Add(strings.TrimSpace(name), strings.TrimSpace(value))
	}
	transport, closeTransport, err := o.transport()
	if err != nil {
		return err
	}
	defer closeTransport()
	response, err := transport.RoundTrip(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if o.include {
		_, _ = fmt.Fprintf(out, "%s %s\n", response.Proto, response.Status)
		for _, name := range slices.Sorted(keys(response.Header)) {
			for _, value := range response.Header[name] {
				_, _ = fmt.Fprintf(out, "%s: %s\n", strings.ToLower(name), value)
			}
		}
		_, _ = fmt.Fprintln(out)
	}
	_, err = io.Copy(out, response.Body)
	return err
}

func keys(h http.Header) func(func(string) bool) {
	return func(yield func(string) bool) {
		for name := range h {
			if !yield(name) {
				return
			}
		}
	}
}

func (o *getOptions) transport() (transport http.RoundTripper, closeTransport func(), err error) {
	conf := &tls.Config{InsecureSkipVerify: o.insecure}
	if o.caCert != "" {
		pem, err := os.ReadFile(o.caCert)
		if err != nil {
			return nil, nil, fmt.Errorf("--cacert: %w", err)
		}
		conf.RootCAs = x509.NewCertPool()
		if !conf.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, errors.New("--cacert: the file holds no PEM certificate")
		}
	}
	if o.http3 {
		t := &http3.Transport{TLSClientConfig: conf}
		if o.connectTo != "" {
			t.Dial = func(ctx context.Context, _ string, tlsConf *tls.Config, quicConf *quic.Config) (*quic.Conn, error) {
				return quic.DialAddrEarly(ctx, o.connectTo, tlsConf, quicConf)
			}
		}
		return t, func() { _ = t.Close() }, nil
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(!o.http2)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(o.http2)
	t := &http.Transport{TLSClientConfig: conf, Protocols: protocols, DisableCompression: true}
	if o.connectTo != "" {
		t.DialContext = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, o.connectTo)
		}
	}
	return t, t.CloseIdleConnections, nil
}
