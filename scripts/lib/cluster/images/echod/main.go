// echod gives tests something to talk to inside a pod:
//
//	echod          TCP echo on :9000; on :9001 a byte source (send "N\n", get N bytes)
//	echod burst N  write N numbered log lines as fast as standard output takes them
package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
)

func main() {
	if len(os.Args) == 3 && os.Args[1] == "burst" {
		burst(os.Args[2])
		return
	}
	go serve(":9001", source)
	serve(":9000", func(c net.Conn) { io.Copy(c, c) })
}

func burst(count string) {
	n, err := strconv.Atoi(count)
	if err != nil {
		fmt.Fprintln(os.Stderr, "echod burst: not a number:", count)
		os.Exit(2)
	}
	w := bufio.NewWriterSize(os.Stdout, 1<<16)
	defer w.Flush()
	for i := 0; i < n; i++ {
		fmt.Fprintf(w, "burst %08d %s\n", i, strings.Repeat("x", 80))
	}
}

func source(c net.Conn) {
	line, _ := bufio.NewReader(c).ReadString('\n')
	n, _ := strconv.ParseInt(strings.TrimSpace(line), 10, 64)
	io.CopyN(c, zeros{}, n)
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 0
	}
	return len(p), nil
}

func serve(address string, handle func(net.Conn)) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		fmt.Fprintln(os.Stderr, "echod:", err)
		os.Exit(1)
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() { defer c.Close(); handle(c) }()
	}
}
