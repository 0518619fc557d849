package behaviour

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go/http3"

	"gatehouse.dev/gatehouse/test/harness"
)

// The harness's clients speak each protocol by themselves; these are other people's.
func TestStockClients(t *testing.T) {
	harness.EachDown(t, func(t *testing.T, d harness.Down) {
		env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			w.Write(body)
		})
		client := &http.Client{Transport: stockTransport(t, d, env.Address()), Timeout: harness.Patience}
		for _, size := range []int{0, 1, 1 << 20} {
			want := pattern(size)
			resp, err := client.Post(d.Scheme()+"://"+harness.DefaultHost+addressPort(d, env), "text/plain", strings.NewReader(string(want)))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if err != nil || resp.StatusCode != 200 {
				t.Errorf("got %d, %v", resp.StatusCode, err)
			}
			wantBytes(t, "echo", got, want)
			if major := map[harness.Down]int{harness.H1: 1, harness.H1TLS: 1, harness.H2: 2, harness.H2C: 2, harness.H3: 3}[d]; resp.ProtoMajor != major {
				t.Errorf("got protocol %s", resp.Proto)
			}
		}
	})
}

func addressPort(d harness.Down, env *harness.Env) string {
	if d == harness.H3 {
		return fmt.Sprintf(":%d", env.Port)
	}
	return ""
}

func stockTransport(t *testing.T, d harness.Down, address string) http.RoundTripper {
	if d == harness.H3 {
		// http3.Transport resolves the URL's host by itself: the certificate's name is set apart.
		conf := harness.ClientTLS(harness.DefaultHost)
		tr := &http3.Transport{TLSClientConfig: conf}
		t.Cleanup(func() { tr.Close() })
		return rehost{tr, address}
	}
	protocols := new(http.Protocols)
	protocols.SetHTTP1(d.IsH1())
	protocols.SetHTTP2(d == harness.H2)
	protocols.SetUnencryptedHTTP2(d == harness.H2C)
	tr := &http.Transport{
		Protocols: protocols, TLSClientConfig: harness.ClientTLS(harness.DefaultHost),
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		},
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// rehost sends a request to an address without changing its Host.
type rehost struct {
	next    http.RoundTripper
	address string
}

func (r rehost) RoundTrip(req *http.Request) (*http.Response, error) {
	out := req.Clone(req.Context())
	out.Host, out.URL.Host = req.URL.Host, r.address
	return r.next.RoundTrip(out)
}

// eventPage shows each event as it comes and says when the third is there.
const eventPage = `<!doctype html><title>events</title><ul id="list"></ul><script>
const source = new EventSource("/events");
source.onmessage = e => {
  const li = document.createElement("li");
  li.textContent = "got " + e.data;
  document.getElementById("list").append(li);
  if (e.data === "3") { source.close(); fetch("/shown", {method: "POST", body: document.getElementById("list").textContent}); }
};
</script>`

// A browser's EventSource sees events while the response is open.
func TestBrowserEventSource(t *testing.T) {
	browser := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome"} {
		if path, err := exec.LookPath(name); err == nil {
			browser = path
			break
		}
	}
	if browser == "" {
		t.Skip("no chromium on the PATH")
	}
	for _, d := range []harness.Down{harness.H1, harness.H2} {
		t.Run(string(d), func(t *testing.T) {
			shown := make(chan string, 1)
			env := harness.New(t, harness.Combo{Down: d, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
				switch r.URL.Path {
				case "/":
					w.Header().Set("Content-Type", "text/html")
					io.WriteString(w, eventPage)
				case "/shown":
					text, _ := io.ReadAll(r.Body)
					shown <- string(text)
				case "/events":
					w.Header().Set("Content-Type", "text/event-stream")
					for i := 1; i <= 3; i++ {
						fmt.Fprintf(w, "data: %d\n\n", i)
						w.(http.Flusher).Flush()
					}
					<-r.Context().Done() // the response stays open: what the page shows came by streaming
				default:
					http.NotFound(w, r)
				}
			})
			ctx, cancel := context.WithTimeout(t.Context(), 3*harness.Patience)
			defer cancel()
			cmd := exec.CommandContext(ctx, browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--ignore-certificate-errors",
				"--disable-background-networking", "--no-first-run", "--user-data-dir="+profileDir(t),
				"--host-resolver-rules=MAP "+harness.DefaultHost+" 127.0.0.1", "--remote-debugging-port=0",
				fmt.Sprintf("%s://%s:%d/", d.Scheme(), harness.DefaultHost, env.Port))
			// The browser's own processes go with it.
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
			cmd.WaitDelay = time.Second
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() {
				cancel()
				_ = cmd.Wait()
			}()
			select {
			case text := <-shown:
				if text != "got 1got 2got 3" {
					t.Errorf("the page shows %q", text)
				}
			case <-ctx.Done():
				t.Error("the page did not show the events")
			}
		})
	}
}

// profileDir is a folder for a browser. Its processes may still write for a moment after the browser has ended, which t.TempDir takes for
// a failure.
func profileDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "profile")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		deadline := time.Now().Add(harness.Patience)
		for os.RemoveAll(dir) != nil && time.Now().Before(deadline) {
			time.Sleep(10 * time.Millisecond) // nothing signals the end of another process's child
		}
	})
	return dir
}
