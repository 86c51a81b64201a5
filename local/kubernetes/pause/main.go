// The process that holds a pod's namespaces: it waits for a signal. With `answer ADDRESS` it also answers HTTP requests
// there, each with a line in its log, so that the cluster can be tried without any other image.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"syscall"
)

func answer(writer http.ResponseWriter, request *http.Request) {
	fmt.Println("asked for", request.URL.Path)
	fmt.Fprintln(writer, "the stand answers")
}

func main() {
	if len(os.Args) == 3 && os.Args[1] == "answer" {
		fmt.Println("answering at", os.Args[2])
		go func() { panic(http.ListenAndServe(os.Args[2], http.HandlerFunc(answer))) }()
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM)
	<-signals
}
