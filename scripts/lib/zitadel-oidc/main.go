// An identity provider on loopback for the tests of relay/provider: the example server of the Go module zitadel/oidc, with a
// port of its own. Its argument is the redirect URI of its clients; standard output gets a line with the issuer. It ends when
// standard input does.
package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"

	"github.com/zitadel/oidc/v3/example/server/exampleop"
	"github.com/zitadel/oidc/v3/example/server/storage"
)

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	issuer := fmt.Sprintf("http://127.0.0.1:%d/", listener.Addr().(*net.TCPAddr).Port)
	storage.RegisterClients(
		storage.WebClient("relay", "secret", os.Args[1]),
		storage.WebClient("other", "secret", os.Args[1]),
	)
	logger := slog.New(slog.NewTextHandler(os.Stderr, nil))
	server := exampleop.SetupServer(issuer, storage.NewStorage(storage.NewUserStore(issuer)), logger, false)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	fmt.Println(issuer)
	fmt.Fprintln(os.Stderr, http.Serve(listener, server))
	os.Exit(1)
}
