( half.py &  half.py; wait)
