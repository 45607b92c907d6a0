"""Programs that submit: a sans-IO core; blocking, asyncio, executor and gevent faces over it."""
