package cluster

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync/atomic"
	"syscall"
)

// serve is the program of the image "web": a server over HTTP and UDP that tells who it is and who asks.
//
//	GET /            NAME VERSION CLIENT-ADDRESS
//	GET /ready       200, or 503 after POST /unready until POST /ready
//	POST /exit       ends the program with code 3
//	UDP              answers every datagram with NAME
func serve() int {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	address := flags.String("listen", ":80", "")
	stubborn := flags.Bool("stubborn", false, "")
	if flags.Parse(os.Args[2:]) != nil {
		return 2
	}
	var unready atomic.Bool
	name, _ := os.Hostname()
	exit := make(chan int, 1)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, r *http.Request) {
		host, _, _ := net.SplitHostPort(r.RemoteAddr)
		fmt.Fprint(w, name, " ", os.Getenv("VERSION"), " ", host)
	})
	mux.HandleFunc("GET /ready", func(w http.ResponseWriter, _ *http.Request) {
		if unready.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("POST /ready", func(http.ResponseWriter, *http.Request) { unready.Store(false) })
	mux.HandleFunc("POST /unready", func(http.ResponseWriter, *http.Request) { unready.Store(true) })
	mux.HandleFunc("POST /exit", func(http.ResponseWriter, *http.Request) { exit <- 3 })
	mux.HandleFunc("GET /prestop", func(http.ResponseWriter, *http.Request) { fmt.Println("prestop") })
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	server := &http.Server{Addr: *address, Handler: mux}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			fmt.Println(err)
			exit <- 1
		}
	}()
	go echo(*address, name, exit)
	fmt.Println("serving as", os.Getuid())
	select {
	case code := <-exit:
		fmt.Println("exit", code)
		return code
	case <-ctx.Done():
		fmt.Println("terminated")
		if *stubborn {
			select {}
		}
		return 0
	}
}

func echo(address, name string, exit chan<- int) {
	c, err := net.ListenPacket("udp", address)
	if err != nil {
		fmt.Println(err)
		exit <- 1
		return
	}
	buffer := make([]byte, 1500)
	for {
		_, from, err := c.ReadFrom(buffer)
		if err != nil {
			return
		}
		_, _ = c.WriteTo([]byte(name), from)
	}
}
