package devcert

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func open(t *testing.T, dir string, options ...Option) *Authority {
	t.Helper()
	a, err := Open(dir, options...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func issue(t *testing.T, a *Authority, names ...string) (chain, key []byte) {
	t.Helper()
	chain, key, err := a.Issue(names)
	if err != nil {
		t.Fatal(err)
	}
	return chain, key
}

// TestHandshake proves that a client that trusts ca.crt alone accepts the certificate for each name and for no other.
func TestHandshake(t *testing.T) {
	a := open(t, t.TempDir())
	chain, key := issue(t, a, "bookinfo.example.com", "*.apps.example.com", "127.0.0.1", "::1")
	cert, err := tls.X509KeyPair(chain, key)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := os.ReadFile(a.Path())
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(ca) {
		t.Fatal("ca.crt holds no certificate")
	}
	tests := map[string]bool{"bookinfo.example.com": true, "x.apps.example.com": true, "127.0.0.1": true, "::1": true, "other.example.com": false}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			client, server := net.Pipe()
			defer client.Close()
			var wg sync.WaitGroup
			wg.Go(func() {
				defer server.Close()
				_ = tls.Server(server, &tls.Config{Certificates: []tls.Certificate{cert}}).Handshake() // the client's view counts
			})
			c := tls.Client(client, &tls.Config{RootCAs: roots, ServerName: name})
			if err := c.Handshake(); (err == nil) != want {
				t.Errorf("handshake: %v, want success %t", err, want)
			}
			client.Close()
			wg.Wait()
		})
	}
}

func TestKeptAcrossRestarts(t *testing.T) {
	dir := t.TempDir()
	first, _ := issue(t, open(t, dir), "a.example.com", "B.example.com")
	again, _ := issue(t, open(t, dir), "b.example.com.", " a.example.com", "a.example.com")
	if !bytes.Equal(first, again) {
		t.Error("the certificate changed across a restart")
	}
	other, _ := issue(t, open(t, dir), "a.example.com")
	if bytes.Equal(first, other) {
		t.Error("another set of names got the same certificate")
	}
}

func TestModes(t *testing.T) {
	dir := t.TempDir()
	issue(t, open(t, dir), "a.example.com")
	err := filepath.WalkDir(filepath.Join(dir, "development-ca"), func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		switch {
		case d.IsDir():
			want = 0o700
		case d.Name() == "ca.crt":
			want = 0o644
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %o, want %o", path, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRefusesWhatOthersCanRead(t *testing.T) {
	for _, name := range []string{"development-ca", "development-ca/ca.pem"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			open(t, dir)
			if err := os.Chmod(filepath.Join(dir, name), 0o755); err != nil {
				t.Fatal(err)
			}
			if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "chmod go=") {
				t.Errorf("error %v, want one that says chmod", err)
			}
		})
	}
}

func TestRenewal(t *testing.T) {
	dir, now := t.TempDir(), time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	a := open(t, dir, WithClock(func() time.Time { return now }))
	ca, err := a.Authority()
	if err != nil {
		t.Fatal(err)
	}
	first, _ := issue(t, a, "a.example.com")

	now = now.Add(leafLife - leafRenew - 2*time.Hour)
	if same, _ := issue(t, a, "a.example.com"); !bytes.Equal(first, same) {
		t.Error("renewed too early")
	}
	now = now.Add(3 * time.Hour)
	second, _ := issue(t, a, "a.example.com")
	if bytes.Equal(first, second) {
		t.Error("not renewed before its end")
	}
	now = now.Add(authorityLife - authorityRenew)
	third, _ := issue(t, a, "a.example.com")
	renewed, err := a.Authority()
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(ca, renewed) || bytes.Equal(second, third) {
		t.Error("the authority was not renewed with its leaves")
	}
	onDisk, err := os.ReadFile(a.Path())
	if err != nil || !bytes.Equal(onDisk, renewed) {
		t.Errorf("ca.crt is not the renewed certificate: %v", err)
	}
}

func TestDamagedFiles(t *testing.T) {
	dir := t.TempDir()
	a := open(t, dir)
	first, _ := issue(t, a, "a.example.com")
	leaves, err := filepath.Glob(filepath.Join(dir, "development-ca", "leaf-*.pem"))
	if err != nil || len(leaves) != 1 {
		t.Fatalf("leaves %v, %v", leaves, err)
	}
	if err := os.WriteFile(leaves[0], []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if again, _ := issue(t, open(t, dir), "a.example.com"); bytes.Equal(first, again) {
		t.Error("a broken leaf came back")
	}
	if err := os.WriteFile(filepath.Join(dir, "development-ca", "ca.pem"), []byte("broken"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "remove") {
		t.Errorf("error %v, want one that says what to remove", err)
	}
}

func TestNames(t *testing.T) {
	a := open(t, t.TempDir())
	many := make([]string, MaxNames+1)
	for i := range many {
		many[i] = fmt.Sprintf("n%d.example.com", i)
	}
	tests := map[string]struct {
		names   []string
		wantErr string
	}{
		"none":      {nil, "no name"},
		"empty":     {[]string{""}, "neither a DNS name"},
		"space":     {[]string{"a b"}, "neither a DNS name"},
		"wildcard":  {[]string{"a.*.example.com"}, "neither a DNS name"},
		"hyphen":    {[]string{"-a.example.com"}, "neither a DNS name"},
		"url":       {[]string{"https://example.com"}, "neither a DNS name"},
		"too many":  {many, "the limit"},
		"localhost": {[]string{"localhost"}, ""},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, _, err := a.Issue(test.names)
			if (err == nil) != (test.wantErr == "") || (err != nil && !strings.Contains(err.Error(), test.wantErr)) {
				t.Errorf("error %v, want %q", err, test.wantErr)
			}
		})
	}
}

// TestOneAuthorityForAll opens one folder from many sides at once: all must end with the same authority.
func TestOneAuthorityForAll(t *testing.T) {
	dir := t.TempDir()
	var wg sync.WaitGroup
	got := make([][]byte, 8)
	for i := range got {
		wg.Go(func() {
			a, err := Open(dir)
			if err != nil {
				t.Error(err)
				return
			}
			if got[i], err = a.Authority(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, ca := range got[1:] {
		if !bytes.Equal(ca, got[0]) {
			t.Fatal("two authorities came from one folder")
		}
	}
}
