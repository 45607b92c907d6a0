// What runtime_figures.py measures of Python's schedulers, of Go's: one line of JSON on stdout.
// The argument scales the counts. GOMAXPROCS is 1, as a P is one core.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

func scaled(n int, scale float64) int { return max(1, int(float64(n)*scale)) }

// CPU time of this process so far, all threads, in ns.
func cpu() int64 {
	var used syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &used); err != nil {
		panic(err)
	}
	return used.Utime.Nano() + used.Stime.Nano()
}

func perOp(began int64, ops int) float64 {
	return float64(cpu()-began) / float64(ops)
}

func switches(turns int) float64 {
	const gs = 10
	var wg sync.WaitGroup
	began := cpu()
	for range gs {
		wg.Add(1)
		go func() {
			for range turns {
				runtime.Gosched()
			}
			wg.Done()
		}()
	}
	wg.Wait()
	return perOp(began, gs*turns)
}

func spawn(batches int) float64 {
	const batch = 100
	var wg sync.WaitGroup
	began := cpu()
	for range batches {
		wg.Add(batch)
		for range batch {
			go func() { wg.Done() }()
		}
		wg.Wait()
	}
	return perOp(began, batches*batch)
}

func channel(trips int) float64 {
	there, back := make(chan int), make(chan int)
	go func() {
		for n := range there {
			back <- n
		}
	}()
	began := cpu()
	for n := range trips {
		there <- n
		<-back
	}
	close(there)
	return perOp(began, 2*trips)
}

func timers(n int) float64 {
	var wg sync.WaitGroup
	wg.Add(n)
	began := cpu()
	for range n {
		time.AfterFunc(time.Microsecond, wg.Done)
	}
	wg.Wait()
	return perOp(began, n)
}

func sleeps(turns int) float64 {
	const gs = 1000
	var wg sync.WaitGroup
	began := cpu()
	for range gs {
		wg.Add(1)
		go func() {
			for range turns {
				time.Sleep(100 * time.Microsecond)
			}
			wg.Done()
		}()
	}
	wg.Wait()
	return perOp(began, gs*turns)
}

func resident() int {
	text, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		panic(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		panic(err)
	}
	return pages * os.Getpagesize()
}

func memory(n int) float64 {
	ch := make(chan int)
	runtime.GC()
	before := resident()
	for range n {
		go func() { <-ch }()
	}
	for range 3 { // all of them get to wait
		runtime.Gosched()
		time.Sleep(10 * time.Millisecond)
	}
	grown := resident() - before
	close(ch)
	return float64(grown) / float64(n)
}

func main() {
	scale, err := strconv.ParseFloat(os.Args[1], 64)
	if err != nil {
		fmt.Fprintln(os.Stderr, "usage: figures SCALE")
		os.Exit(2)
	}
	runtime.GOMAXPROCS(1)
	seen := map[string]float64{
		"memory":  memory(scaled(100_000, scale)),
		"switch":  switches(scaled(20_000, scale)),
		"spawn":   spawn(scaled(500, scale)),
		"channel": channel(scaled(30_000, scale)),
		"timer":   timers(scaled(30_000, scale)),
		"sleep":   sleeps(scaled(20, scale)),
	}
	if err := json.NewEncoder(os.Stdout).Encode(seen); err != nil {
		panic(err)
	}
}
